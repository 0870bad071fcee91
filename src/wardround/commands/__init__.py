"""Commands that belong to no one of the four folders: study files, and this installation."""
