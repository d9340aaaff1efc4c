"""What the simulator takes from the environment and `.env`; everything else comes from its command line."""

from libs.service.settings import LogSettings, Port


class SimulatorSettings(LogSettings):
    """The port that the command line may override, and how to log."""

    simulator_port: Port = 8765
