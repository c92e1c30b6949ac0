"""The error a user of `reid` sees: one line that names the value and the remedy."""


class UserError(Exception):
    """Bad input, with a message that says what was found, what was expected and what to do."""
