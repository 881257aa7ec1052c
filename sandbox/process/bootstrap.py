# Runs one program as if it were started as a script, then sends the value of
# its variable "result" as JSON. Two descriptors, which may be one, are the node:
# frames of a 32-bit length, a letter and a payload go out; the program comes in.
import sys, os


def boot(inlet, outlet):
    read, write, getpid, leave = os.read, os.write, os.getpid, os._exit
    modules, size = sys.modules, len
    me = getpid()
    name = "main.py"

    def send(kind, payload):
        if getpid() != me:
            return
        data = (size(payload) + 1).to_bytes(4, "big") + kind + payload
        while data:
            data = data[write(outlet, data):]

    def receive(n):
        out = b""
        while len(out) < n:
            part = read(inlet, min(n - len(out), 65536))
            if not part:
                leave(0)
            out += part
        return out

    def tell(code, text):
        text = text if size(text) <= 500 else text[:500] + "..."
        send(b"E", (code + "\n" + text).encode("utf-8", "replace"))

    # The module json takes as long to import as the interpreter takes to start,
    # most of it for regular expressions that only its decoder needs. This is its
    # own encoder, with the settings of dumps(value, allow_nan=False).
    try:
        from _json import make_encoder, encode_basestring_ascii as quote
    except ImportError:
        import json
        dumps = json.dumps
    else:
        def foreign(value):
            raise TypeError("Object of type %s is not JSON serializable" % value.__class__.__name__)

        def dumps(value, allow_nan):
            chunks = make_encoder({}, foreign, quote, None, ": ", ", ", False, False, allow_nan)(value, 0)
            return "".join(chunks)

    def encode(value, most):
        try:
            text = dumps(value, allow_nan=False)
        except MemoryError:
            raise
        except RecursionError:
            return None, "result_not_json", "result is nested too deeply"
        except TypeError as e:
            return None, "result_not_json", "result cannot be JSON: " + str(e)
        except ValueError as e:
            why = str(e)
            if "Circular" in why:
                why = "it contains itself"
            elif "Out of range" in why:
                why = "NaN and Infinity do not exist in JSON"
            elif "digits" in why:
                why = "it has an int of more than 4300 digits"
            return None, "result_not_json", "result cannot be JSON: " + why
        except BaseException as e:
            # From a method of the program's own.
            return None, "result_not_json", "result cannot be JSON: " + type(e).__name__ + " while it was read"
        if size(text) > most:
            return None, "result_too_large", "result takes %d bytes as JSON, more than %d" % (size(text), most)
        return text.encode("ascii"), "", ""

    def show(error, source):
        tb = error.__traceback__
        while tb is not None and tb.tb_frame.f_code.co_filename == "<string>":
            tb = tb.tb_next
        error.__traceback__ = tb
        try:
            import linecache, traceback
            text = source.decode("utf-8", "replace")
            linecache.cache[name] = (len(text), None, text.splitlines(True), name)
            if sys.excepthook is not sys.__excepthook__:
                sys.excepthook(type(error), error, tb)
            else:
                traceback.print_exception(type(error), error, tb)
        except MemoryError:
            raise
        except BaseException:
            write(2, b"Traceback cannot be shown\n")
        line = 0
        while tb is not None:
            if tb.tb_frame.f_code.co_filename == name:
                line = tb.tb_lineno
            tb = tb.tb_next
        if isinstance(error, SyntaxError):
            line = error.lineno or 0
        try:
            text = type(error).__name__ + ": " + str(error)
        except BaseException:
            text = type(error).__name__
        tell("language_error", text + (" (line %d)" % line if line and "line" not in text else ""))

    def stop(code=None):
        raise SystemExit(code)

    os.set_inheritable(inlet, False)
    os.set_inheritable(outlet, False)
    packages = os.path.dirname(os.__file__) + "/site-packages"
    if not os.path.isdir(packages):
        packages = ""
    # Once without consequences, so that what the program will need is in memory.
    exec(compile("def f(a, *b):\n  return [a, b, 1.5, 'x%d' % 1, {}]\nresult = f(1)", "<string>", "exec", dont_inherit=True), {})
    encode({"a": [1, 2.5, "x", None, True]}, 100)
    sys.stdout.write("")
    sys.stdout.flush()
    send(b"H", b"")
    try:
        from select import select
        waits = not select([inlet], [], [], 0.02)[0]
    except (ImportError, OSError, ValueError):
        waits = False
    if waits:
        # Nobody is in a hurry: what many programs import is ready for them.
        import json, re, random, datetime, collections, functools, itertools, math
    head = receive(12)
    most = int.from_bytes(head[4:8], "big")
    source = receive(int.from_bytes(head[:4], "big"))
    args = receive(int.from_bytes(head[8:], "big"))
    if args == b"[]":
        args = []
    else:
        import json
        args = json.loads(args)
    if inlet != outlet:
        os.close(inlet)

    main = type(sys)("__main__")
    main.__file__ = "/work/" + name
    main.__builtins__ = modules["builtins"]
    modules["__main__"] = main
    sys.argv = [name] + args
    sys.path.insert(0, "/work")
    if packages:
        sys.path.append(packages)
    # These two come from the module "site", which -S leaves out.
    modules["builtins"].exit = modules["builtins"].quit = stop
    status, told = 0, False
    try:
        try:
            exec(compile(source, name, "exec", dont_inherit=True), main.__dict__)
        except SystemExit as e:
            if e.code is None:
                status = 0
            elif isinstance(e.code, int):
                # As the interpreter itself has it.
                status = e.code & 255 if -2**63 <= e.code < 2**63 else 255
            else:
                print(e.code, file=sys.stderr)
                status = 1
        except MemoryError:
            raise
        except BaseException as e:
            status, told = 1, True
            show(e, source)
        if "threading" in modules:
            modules["threading"]._shutdown()
        if not told and "result" in main.__dict__:
            value, code, why = encode(main.__dict__["result"], most)
            if value is not None:
                send(b"R", value)
            else:
                status = status or 1
                tell(code, why)
        if "atexit" in modules:
            modules["atexit"]._run_exitfuncs()
        for out in (sys.stdout, sys.stderr):
            try:
                if out is not None and not out.closed:
                    out.flush()
            except MemoryError:
                raise
            except BaseException:
                status = status or 120
    except MemoryError:
        main = None
        send(b"E", b"out_of_memory\nMemoryError")
        write(2, b"MemoryError\n")
        leave(137)
    leave(status)
