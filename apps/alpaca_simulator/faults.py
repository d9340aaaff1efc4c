"""The switches that make the simulator misbehave, read afresh at every use, so a test may turn them while it runs.

Dropping connections is an act, not a state: `Simulator.drop_all`. A new fault is a new field here and one reader.
"""

from dataclasses import dataclass

from apps.alpaca_simulator.protocol import ErrorCode


@dataclass(frozen=True, slots=True)
class Faults:
    """How the server misbehaves now; the default does not.

    `mute`: connections live, pongs come, data does not. `half_open`: nothing is read or written, nothing is closed.
    `frame_delay_s`: seconds before each data frame. `malformed_every`: every n-th data frame is cut short (0 = none).
    `auth_error`: what every authentication is answered with. `upgrade_status`: HTTP answer instead of the upgrade.
    `rest_status`: HTTP answer of every REST call; `rest_delay_s`: seconds before it.
    """

    mute: bool = False
    half_open: bool = False
    frame_delay_s: float = 0.0
    malformed_every: int = 0
    auth_error: ErrorCode | None = None
    upgrade_status: int | None = None
    rest_status: int | None = None
    rest_delay_s: float = 0.0


NO_FAULTS = Faults()
