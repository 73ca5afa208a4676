"""mpi_test.py MPIRUN PROGRAM [large]: ranks in processes. The suite passes; whatever happens to one rank, all end within seconds, with a
message of the one that noticed and an exit code that is not 0."""
import os
import subprocess
import sys
import time

MPIRUN, PROGRAM = sys.argv[1:3]
# OpenMPI in containers and as root; other MPIs do not know these.
ENVIRONMENT = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                   OMPI_MCA_btl_vader_single_copy_mechanism="none", OMPI_MCA_mpi_yield_when_idle="1")
failures = 0


def run(mode, ranks, ok, within, *expected):
    """Runs `mode`; exit code 0 or not, no longer than `within` seconds, and each of `expected` in what it prints."""
    global failures
    begin = time.monotonic()
    try:
        done = subprocess.run([MPIRUN, "-n", str(ranks), PROGRAM, mode], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=100)
    except subprocess.TimeoutExpired as late:
        failures += 1
        print(f"FAILED {mode}: still running after {late.timeout} s")
        return
    took = time.monotonic() - begin
    text = done.stdout + done.stderr
    wrong = [f"'{e}' is missing" for e in expected if e not in text]
    if (done.returncode == 0) != ok:
        wrong.append(f"exit code {done.returncode}")
    if took > within:
        wrong.append(f"took {took:.1f} s, more than {within}")
    if wrong or os.environ.get("SHEAF_VERBOSE"):
        print(f"{'FAILED' if wrong else 'passed'} {mode} ({took:.1f} s, exit code {done.returncode}): {'; '.join(wrong)}\n{text}")
    failures += bool(wrong)


if "large" in sys.argv:
    run("large", 2, True, 60)
else:
    run("suite", 4, True, 60, "the suite passed on 4 ranks")
    run("suite", 1, True, 60, "the suite passed on 1 ranks")
    run("late", 4, False, 15, "s in 'gather of @w' for rank 2\nif it is only slow, raise run.timeout_s")
    run("kill", 4, False, 15)
    run("abort", 4, False, 15, "test: disk full")
    run("abort-waits", 4, False, 15, "test: rank 1: disk full")
    run("unnoticed", 4, False, 15, "test: no such file")
    run("shorter", 2, False, 15, "rank 1 expects 8 bytes from rank 0 in 'sum of @a', which sent 4")
    run("longer", 2, False, 15, "rank 1 expects 8 bytes from rank 0 in 'sum of @a', which sent more")
sys.exit(bool(failures))
