"""What the mirror tells the ledger to do. Every command may be repeated: the ledger carries each out once."""

from dataclasses import dataclass

from libs.broker.executions import Activity, Execution


@dataclass(frozen=True, slots=True)
class RecordExecution:
    """Record the execution under its id. Known already: no effect."""

    execution: Execution


@dataclass(frozen=True, slots=True)
class VoidExecution:
    """Take back what was recorded under this id. Void already, or never recorded: no effect."""

    execution_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class RecordActivity:
    """Take note of an activity that is no trade. Known already: no effect."""

    activity: Activity


Command = RecordExecution | VoidExecution | RecordActivity
