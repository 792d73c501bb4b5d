"""Functions that tests have called in other processes, in a module that these import at once."""

import os
import signal
import time


def add(shared, number):
    return shared + number


def process(shared):
    return os.getpid()


def sleep(shared, seconds):
    time.sleep(seconds)


def die(shared):
    os.kill(os.getpid(), signal.SIGKILL)


def refuse(shared):
    raise FileNotFoundError("no such thing")


class Odd(Exception):
    """One that can't be made anew from what it says."""

    def __init__(self, first, second):
        super().__init__(first)


def refuse_oddly(shared):
    raise Odd("one", "two")


def unsendable(shared):
    return lambda: None
