"""
Runs the core's tests without pytest: `micropython runner.py FILE [NAME ...]`.

Prints a line a test and ends with `N passed, N failed`; the exit code is 1 when one failed.
"""

import sys


def main(path, *names):
    folder, _, file = path.rpartition("/")
    sys.path.insert(0, folder)
    module = __import__(file[:-3])
    passed = failed = 0
    for name in names or sorted(n for n in dir(module) if n.startswith("test_")):
        try:
            getattr(module, name)()
            passed += 1
            print("ok  ", name)
        except Exception as e:
            failed += 1
            print("FAIL", name)
            if hasattr(sys, "print_exception"):
                sys.print_exception(e, sys.stdout)
            else:
                import traceback

                traceback.print_exc(file=sys.stdout)
        support = sys.modules.get("support")
        if support:
            support.clean()
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed else 0)


main(*sys.argv[1:])
