"""What a user can do wrong; each message is one sentence that says what was wrong, where, and what is allowed."""


class UserError(ValueError):
    """What a user can do wrong."""


class ConfigError(UserError):
    """A setting that cannot be; the message names it, says what was wrong and what is allowed."""


class DataError(UserError):
    """A file or folder that cannot be used; the message names it, says what is wrong and what is allowed."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read or does not fit; the message names the file and what is wrong with it."""


class TrainingError(UserError):
    """Training that cannot begin or go on; the message says why."""


class ConversionError(UserError):
    """A model that cannot be converted; the message names its class, the module that stands in the way, and why."""
