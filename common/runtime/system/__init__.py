"""What not every operating system has, and nowhere else: locks, forks, signals, accounts, limits.

Linux has all of it. Elsewhere a simulation does without: each function here says what it does then.
What serves others, a site's daemon and the server, asks for Linux (``required.py``).
"""
