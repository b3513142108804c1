"""`python -m topreward_ros.cli`: the command line without its script (scripts/topreward), which says why."""

if __name__ == "__main__":  # processes that this one starts import it
    try:  # as long as Python imports there is nothing to clean up: leave at once
        import os
        import signal
        import sys

        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in the background of a shell
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # SIGTERM ends it without us
    except KeyboardInterrupt:  # before that
        raise SystemExit(130) from None

    from topreward_ros.cli.main import command

    sys.exit(command())
