"""Folders as they are: which layout is it, and which manifest would describe it?"""
