"""Programs that tests start."""

# Before a command: SIGKILL ends the program when the thread that has started it ends, however that
# comes about, so that a killed test process leaves nothing behind.
ENDS_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
