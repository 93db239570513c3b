"""Processes: started, watched, stopped gracefully, started again.

This is what `authz serve` keeps in memory to watch one worker: standard library only.
"""
