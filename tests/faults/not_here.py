"""What a machine cannot do."""


class NotHereError(Exception):
    """This machine cannot do a fault; the text says what it lacks."""
