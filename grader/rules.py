"""The audit hook: refuses what a read-only sandbox would, and reports what the submission does.

Python announces what it is about to do (`sys.addaudithook`, PEP 578) before it does it: opening a
file, connecting a socket, starting a program. docs/grader.md, "The rules", explains the judgement.

This file is executed inside the submission's process before course/script.py, out of sight: it is
no module there, and imports nothing that the interpreter does not load by itself. A module that it
imported could not be replaced by a file beside the code, as it is in the testing system.
"""

import os
import sys
from _thread import get_ident
from errno import ENETUNREACH, ENOENT, EROFS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
else:
    Any = object

NETWORK, FILES, ACCELERATOR = "no internet", "no file written", "no accelerator"
# Who made a call: a line of the submission, a library that such a line called, a library by itself.
DIRECT, VIA_LIBRARY, LIBRARY_INTERNAL = "direct", "via library", "library internal"

# The events of course/script.py.
PHASE, WARNING, FAILURE = "grader.phase", "grader.warning", "grader.failure"
# A semaphore of multiprocessing is a "file" of 32 bytes in shared memory: zero would forbid it.
FILE_SIZE_LIMIT = 64  # bytes

_MOST_REPORTS = 100  # refusals, warnings and foreign files of a process
_HIDDEN = ("<", globals().get("__file__", "<grader>"))  # frames that are nobody's
_STANDARD = os.path.dirname(os.__file__) + os.sep
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_DRIVERS = ("libcuda.so", "nvcuda.dll", "libamdhip64", "libze_loader", "ze_loader.dll")
_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/accel")
_STREAMS = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty", "/dev/ptmx", "/dev/pts/", "/proc/")
# Started by the standard library to find libraries and name the machine.
_HARMLESS_PROGRAMS = {"ldconfig", "gcc", "cc", "objdump", "ld", "uname", "lscpu", "sysctl", "ver"}
_WORKER_MODULES = ("multiprocessing.popen_spawn", "multiprocessing.popen_forkserver")
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn")
# Calls that change a file system, and which of their arguments name what is changed. Those of
# shutil and tempfile announce themselves as well, but are judged by the calls that they make.
_ALTERING = ("os.truncate", "os.chmod", "os.chown", "os.utime", "os.setxattr", "os.removexattr")
_MAKING = ("os.mkdir", "os.link", "os.symlink")
_CHANGES = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.chflags", *_ALTERING), (0,)),
    **dict.fromkeys(("os.link", "os.symlink"), (1,)),
    "os.rename": (0, 1),
}
_REVERSE_LOOK_UPS = ("socket.gethostbyaddr", "socket.getnameinfo")
_LOOK_UPS = ("socket.getaddrinfo", "socket.gethostbyname", *_REVERSE_LOOK_UPS)
# Native functions that write files and announce nothing: by module, the path of attributes to each,
# and where its arguments hold the file's name; -1: it makes shared memory.
_NATIVE_WRITERS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "torch": (
        ("_C", "PyTorchFileWriter", "__init__", 1),
        ("_C", "ScriptModule", "save", 1),
        ("UntypedStorage", "share_memory_", -1),
    ),
    "torchvision.io.image": (("write_file", 0),),
    "safetensors._safetensors_rust": (("serialize_file", 1),),
    "cv2": (("imwrite", 0), ("imwritemulti", 0)),
}


def install(config: dict[str, Any]) -> None:
    """Watch this process from now on; Python has no way to remove an audit hook."""
    rules = Rules(config)
    sys.addaudithook(rules.watch)
    sys.meta_path.insert(0, rules)


class Rules:
    """The hook's state; nothing is refused before the script's first phase.

    Args:
        config: folders: `code`, of the script and the code; `submission`, that it was made from;
            `data` and `output`, the script's; `base`, the run's; `scratch`, that libraries may
            write in; `known`, that the testing system has, too. `channel`, the file that reports
            go to, after the word `token`; `limit_files`, whether no file may grow.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.pid = config, os.getpid()
        self.roots = tuple(config[name] + os.sep for name in ("code", "submission"))
        self.own = (*self.roots, *(config[name] + os.sep for name in ("base", "data")))
        self.scratch = tuple(folder + os.sep for folder in config["scratch"])
        known = [*config["known"], config["data"], config["base"], *map(str, sys.path)]
        self.known = tuple({os.path.join(path, "") for path in known if path}) + self.roots
        self.phase = ""  # nothing is refused
        self.saving = False  # the script writes the answer, or the model
        self.busy: set[int] = set()  # threads that are in the hook: what it does is not judged
        self.reported: set[str] = set()
        self.imported: set[str] = set()  # top-level names that the submission's lines import
        self.made: set[str] = set()  # announced in scratch, so no matter of native code
        self.resource = _import_hidden("resource") if config["limit_files"] else None
        self.handlers: dict[str, Any] = {
            PHASE: lambda event, args: self.begin(*args),
            WARNING: lambda event, args: self.tell("warnings", *args),
            FAILURE: lambda event, args: self.fail(*args),
            "open": self._on_open,
            "import": self._on_import,
            "ctypes.dlopen": self._on_library,
            "sqlite3.connect": self._on_database,
            **dict.fromkeys(_CHANGES, self._on_change),
            **dict.fromkeys(_LOOK_UPS, self._on_look_up),
            **dict.fromkeys(("socket.connect", "socket.sendto", "socket.sendmsg"), self._on_send),
            **dict.fromkeys(("os.fork", "os.forkpty"), self._on_worker),
            **dict.fromkeys(_PROGRAMS, self._on_program),
        }

    def watch(self, event: str, args: tuple[Any, ...]) -> None:
        """Judge one event, unless the hook itself caused it."""
        handler = self.handlers.get(event)
        if handler is None or not (self.phase or event == PHASE) or get_ident() in self.busy:
            return
        if event in (PHASE, FAILURE) and os.getpid() != self.pid:
            return  # a fork of the submission's goes on
        self.busy.add(get_ident())
        try:
            handler(event, args)
        except Exception as error:
            if hasattr(error, "_refusal") or isinstance(error, MemoryError):
                raise
            text = f"{self.phase}: the hook failed at {event}: {_message(error)}"
            self.report("notes", text, text=text)
        finally:
            self.busy.discard(get_ident())

    def send(self, event: str, **facts: Any) -> None:
        """Report to the grader; every time anew, since a submission may close what is open."""
        line = f"{self.config['token']} {dict(facts, event=event, memory=_peak_memory())!r}\n"
        data = line.encode(errors="backslashreplace")
        try:
            channel = os.open(self.config["channel"], os.O_WRONLY | os.O_APPEND)
            while data:
                data = data[os.write(channel, data) :]
            os.close(channel)
        except OSError:  # the grader is gone
            pass

    def tell(self, kind: str, text: str) -> None:
        """Report a line for one of the lists of an Outcome: "warnings", "notes", "foreign"."""
        text, where = f"{self.phase}: {text}", self.find_origin()[0]["where"]
        self.report(kind, text, text=text + (f" ({where})" if where else ""))

    def report(self, event: str, key: str, **facts: Any) -> None:
        """Report once, however often it happens."""
        if key not in self.reported and len(self.reported) < _MOST_REPORTS:
            self.reported.add(key)
            self.send(event, **facts)

    # ---- Phases ----

    def begin(self, phase: str) -> None:
        """End the phase before and begin this one."""
        self.limit_files(FILE_SIZE_LIMIT if phase in ("fast_train", "train", "classify") else None)
        self.saving = phase in ("answer", "save")  # the end of classify, of train
        if self.saving:
            return
        if self.phase:
            self._clear_scratch()
        if phase == "exit":
            self._send_modules()
        self.phase = phase
        self.send("start", phase=phase)

    def fail(self, error: BaseException) -> None:
        """Report the exception that ends the script."""
        self.limit_files()
        self._send_modules()
        self.send(
            "failure",
            message=("the result cannot be written: " if self.saving else "") + _message(error),
            where=self._line_of(error),
            refusal=_refusal_behind(error),
        )
        self.phase = "exit"

    # ---- Files ----

    def _on_open(self, event: str, args: tuple[Any, ...]) -> None:
        path, mode, flags = args
        if isinstance(path, int) or path is None:
            return None  # a descriptor: judged when it was opened
        name = os.fsdecode(path)
        if name.startswith(_DEVICES):
            raise self._refused(ACCELERATOR, event, (path, mode), _error(ENOENT, name))
        if not (flags or 0) & _WRITING:
            return self._on_read(name)
        real = os.path.realpath(name)
        harmless = real.startswith(_STREAMS) or name.lower() == os.devnull
        answer = self.saving and real.startswith(self.config["output"] + os.sep)
        if harmless or answer or not (flags & os.O_CREAT or os.path.lexists(real)):
            return None  # what is not there: the system says so itself
        return self._judge(event, (path, mode), [real])

    def _on_read(self, name: str) -> None:
        if name.startswith(self.known) and ".." not in name and not name.startswith(self.roots[1]):
            return
        real = os.path.realpath(name)
        folder, file = os.path.split(real)
        # A file beside the code was copied: who reads it where it was names this machine's folder.
        there = folder + os.sep == self.roots[1] and not os.path.islink(self.roots[0] + file)
        if (there or not real.startswith(self.known)) and os.path.isfile(real):
            self.tell("foreign", f"reads {real}")

    def _on_change(self, event: str, args: tuple[Any, ...]) -> None:
        given = [args[i] for i in _CHANGES[event]]
        if event == "os.truncate" and isinstance(given[0], int):
            return self.limit_files()  # shared memory gets its size
        opened = f"/proc/self/fd/{args[-1]}"  # the folder that names may be relative to
        base = os.path.realpath(opened) if os.path.isdir(opened) else ""
        names = [os.path.join(base, os.fsdecode(v)) for v in given if not isinstance(v, int)]
        there = bool(names) and os.path.lexists(names[-1])
        if not names or (there if event in _MAKING else not there and event in _ALTERING):
            return None  # the system says itself that it is there, or that it is not
        parts = map(os.path.split, names)
        return self._judge(event, args, [os.path.join(os.path.realpath(f), n) for f, n in parts])

    def _on_database(self, event: str, args: tuple[Any, ...]) -> None:
        """Let SQLite open what is there: it falls back to reading by itself."""
        name = os.fsdecode(args[0]).removeprefix("file:").partition("?")[0]
        if name not in ("", ":memory:") and not os.path.exists(name):
            error = sys.modules["_sqlite3"].OperationalError("unable to open database file")
            self._judge(event, args, [os.path.realpath(name)], error)

    def _judge(self, event: str, args: Any, paths: list[str], error: Any = None) -> None:
        """Let scratch be written, refuse everything else, report what is a matter of the rules.

        In scratch, a file that the submission itself writes or names breaks the rule although it
        is written: whether the testing system has such a place is unknown.
        """
        if not os.path.isdir(os.path.dirname(paths[-1])):
            return  # nothing can come of it, and the system says so itself
        error = error or _error(EROFS, paths[-1])
        if "__pycache__" in paths[-1]:  # Python does without
            error._refusal = None
            raise error
        if not all(map(self._is_scratch, paths)):
            raise self._refused(FILES, event, args, error, paths[-1].startswith(self.roots))
        self.limit_files()
        self._note_made(paths)
        origin, values = self.find_origin()
        texts = [os.path.abspath(text) for text in map(_path, values) if text]
        names = [text for text in texts if text.startswith(self.scratch)]  # or of folders around it
        given = any(path.startswith(name) for path in paths for name in names)
        if given and origin["kind"] == LIBRARY_INTERNAL:  # in another thread
            origin["kind"] = VIA_LIBRARY
        if given or origin["kind"] == DIRECT:
            self._report(FILES, event, args, origin, breach=True)

    def _is_scratch(self, path: str) -> bool:
        """Tell whether libraries may write there; a run's own folders may lie in /dev/shm."""
        path = path + os.sep
        return path.startswith(self.scratch[0]) or (
            path.startswith(self.scratch) and not path.startswith(self.own)
        )

    def _note_made(self, paths: list[str]) -> None:
        """Note the files and folders right in scratch that paths lie in."""
        for path in paths:
            root = next((root for root in self.scratch if path.startswith(root)), path)
            top = root + path[len(root) :].partition(os.sep)[0]
            if top not in self.made and not os.path.lexists(top):
                self.send("made", text=top)
            self.made.add(top)

    def _clear_scratch(self) -> None:
        """Remove what no library announced: no later phase finds what a program left there."""
        folder = self.config["scratch"][0]
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            if path not in self.made and not name.startswith("torch-shm"):  # its manager's socket
                _import_hidden("shutil").rmtree(path, ignore_errors=True)
                if os.path.lexists(path):
                    os.remove(path)
                text = f"{name}, which native code or a program left in the temporary folder"
                self.tell("notes", f"{text}, was removed at the phase's end")

    def limit_files(self, limit: int | None = None) -> None:
        """Let files of this process grow to `limit` bytes; None: to any size."""
        if self.resource:
            kind = self.resource.RLIMIT_FSIZE
            hard = self.resource.getrlimit(kind)[1]
            self.resource.setrlimit(kind, (hard if limit is None else limit, hard))

    # ---- The network ----

    def _on_send(self, event: str, args: tuple[Any, ...]) -> None:
        connection, address = args[0], args[1]
        if isinstance(address, (str, bytes)):  # a socket of this machine, by its file
            name = os.fsdecode(address)
            abstract = name[:1] in ("", "\0")
            if not abstract and not os.path.realpath(name).startswith(self.scratch):
                raise self._refused(NETWORK, event, args[1:], _error(ENOENT, name))
        elif isinstance(address, tuple) and not _is_this_machine(address[0]):
            family = getattr(connection, "family", 0)
            if family in (2, 10, 23, 30):  # AF_INET; AF_INET6 on Linux, Windows, macOS
                raise self._refused(NETWORK, event, args[1:], _error(ENETUNREACH))

    def _on_look_up(self, event: str, args: tuple[Any, ...]) -> None:
        host = args[0][0] if isinstance(args[0], tuple) else args[0]
        # A number needs no look-up, but for its name.
        if not _is_this_machine(host) and (event in _REVERSE_LOOK_UPS or not _is_number(host)):
            socket = sys.modules["_socket"]
            error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            raise self._refused(NETWORK, event, args, error)

    # ---- Libraries, programs, workers, threads ----

    def _on_import(self, event: str, args: tuple[Any, ...]) -> None:
        name = args[0]
        if name.startswith(_WORKER_MODULES):
            self._on_worker(event, args)
        elif name == "_posixshmem":
            self.limit_files()
        files = (frame.f_code.co_filename for frame in _linked(sys._getframe()))
        if self.line_name(next((file for file in files if not file.startswith(_HIDDEN)), "")):
            self.imported.add(name.partition(".")[0])

    def _on_library(self, event: str, args: tuple[Any, ...]) -> None:
        if any(driver in str(args[0]) for driver in _DRIVERS):
            missing = f"{args[0]}: cannot open shared object file: No such file or directory"
            raise self._refused(ACCELERATOR, event, args, OSError(missing))

    def _on_program(self, event: str, args: tuple[Any, ...]) -> None:
        words = args[1] if event in ("os.spawn", "subprocess.Popen") else args[0]
        words = words[0] if isinstance(words, (list, tuple)) else words
        program = (_path(words).split() or ["?"])[0]
        harmless = program.replace("\\", "/").rpartition("/")[2] in _HARMLESS_PROGRAMS
        if not harmless and self.find_origin()[0]["kind"] != LIBRARY_INTERNAL:
            text = f"starts another program ({program}), which the audit hook cannot watch"
            self.tell("warnings", text)

    def _on_worker(self, _event: str, _args: tuple[Any, ...]) -> None:
        """Note worker processes: `classify` should have none, and they share memory in files."""
        self.limit_files()
        if self.phase == "classify":
            self.tell("warnings", "worker processes: the course advises against them in classify")

    def _send_modules(self) -> None:
        """Report the submission's files that were imported, and the packages that it imports."""
        files = {name: getattr(m, "__file__", None) or "" for name, m in list(sys.modules.items())}
        own = {line for file in files.values() if (line := self.line_name(str(file)))}
        names = [n for n in self.imported - set(sys.stdlib_module_names) if files.get(n)]
        imported = sorted(name for name in names if not self.line_name(files[name]))
        self.send("modules", own=sorted(own), imported=imported)

    # ---- Refusals ----

    def _refused(self, rule: str, event: str, args: Any, error: Any, own: bool = False) -> Any:
        """Report a refused call, and return the error to raise, which carries the refusal.

        The testing system refuses for certain what is its network, or the code's `own` folder: an
        attempt has no effect there.
        """
        origin, _ = self.find_origin()
        breach = origin["kind"] == DIRECT and rule != NETWORK and not own
        error._refusal = self._report(rule, event, args, origin, breach)
        return error

    def _report(self, rule: str, event: str, args: Any, origin: Any, breach: bool) -> Any:
        # Names and addresses say something, descriptors and flags nothing.
        names = (value if isinstance(value, tuple) else _path(value) for value in args)
        call = f"{event}({', '.join(repr(name) for name in names if name):.200})"
        facts = {"phase": self.phase, "rule": rule, "call": call, **origin, "breach": breach}
        self.report("refusal", f"{rule} {facts['where']} {call}", **facts)
        return facts

    def find_origin(self) -> tuple[dict[str, Any], Any]:
        """Return who made a call, and the values at hand there: a file's name may be one of them.

        The stack is walked outwards, to the innermost line of the submission's; `through` names
        the library's functions on the way, the innermost first. A library's module body on the way
        means that it is being imported: it acts by itself. So it does in a thread without a line of
        the submission's, whose code may have given it a name (`ThreadPoolExecutor.submit(np.save,
        name)`), and in tempfile, which looks for a folder.
        """
        called, by_itself, through = None, False, list[str]()
        for frame in _linked(sys._getframe(1)):
            code = frame.f_code
            if line := self.line_name(code.co_filename):
                kind, where = VIA_LIBRARY if called else DIRECT, f"{line}:{frame.f_lineno}"
                values: Any = (*_arguments(called), *frame.f_locals.values(), *code.co_consts)
                break
            by_itself = by_itself or code.co_name == "_get_default_tempdir"
            if not self._passes_on(code.co_filename, code.co_name):
                called, by_itself = frame, by_itself or code.co_name == "<module>"
                through.append(f"{frame.f_globals.get('__name__', '')}.{code.co_name}")
        else:
            kind, where, values = LIBRARY_INTERNAL, "", () if by_itself else self._constants()
        if by_itself:
            kind, values = LIBRARY_INTERNAL, ()
        return {"kind": kind, "where": where, "through": tuple(through)}, values

    def _constants(self) -> list[Any]:
        """Return what the submission's modules hold, and the constants of their functions."""
        modules = list(sys.modules.values())
        own = [m for m in modules if self.line_name(str(getattr(m, "__file__", None)))]
        values = [value for module in own for value in list(vars(module).values())]
        codes = [value.__code__ for value in values if hasattr(value, "__code__")]
        while codes:
            constants = codes.pop().co_consts
            values += constants
            codes += [constant for constant in constants if hasattr(constant, "co_consts")]
        return values

    def _passes_on(self, file: str, function: str) -> bool:
        """Tell whether a frame does what it is told, unlike a library.

        So does the standard library, but for multiprocessing: it keeps sockets and shared memory.
        """
        if file.startswith(_HIDDEN):
            return function != "audited"  # which stands for a library's native function
        if file.startswith(_STANDARD) and "site-packages" not in file:
            return not file.startswith(os.path.join(_STANDARD, "multiprocessing", ""))
        return file in self.config["scripts"]

    def line_name(self, file: str) -> str | None:
        """Return a file's path inside the submission; None if it is none of its files."""
        root = next((root for root in self.roots if file.startswith(root)), None)
        # A virtual environment may lie in the folder; the script is the course's.
        if root is None or "site-packages" in file or file in self.config["scripts"]:
            return None
        return file[len(root) :].replace(os.sep, "/")

    def _line_of(self, error: BaseException) -> str:
        links = _linked(error.__traceback__, "tb_next")
        lines = [(link.tb_frame.f_code.co_filename, link.tb_lineno) for link in links]
        if isinstance(error, SyntaxError):
            lines.append((error.filename or "", error.lineno or 0))
        names = [f"{name}:{line}" for file, line in lines if (name := self.line_name(file))]
        return names[-1] if names else ""

    # ---- Native functions ----

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        """Find a module as the other finders do, to wrap its native functions once it is loaded.

        They announce the files that they open, as `open` does. Where the hook refuses, a function
        fails as on a path that cannot be opened: with its own kind of error.
        """
        if name not in _NATIVE_WRITERS:
            return None
        others = (f.find_spec(name, path, target) for f in sys.meta_path if f is not self)
        spec = next((spec for spec in others if spec), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_wrap(module: Any) -> None:
                execute(module)
                for *path, last, position in _NATIVE_WRITERS[name]:
                    owner: Any = module
                    for part in path:
                        owner = getattr(owner, part, None)
                    if function := owner and getattr(owner, last, None):
                        setattr(owner, last, self._audited(function, position))

            spec.loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec

    def _audited(self, function: Any, position: int) -> Any:
        def audited(*args: Any, **options: Any) -> Any:
            if position < 0:
                self.limit_files()
            name, refusal = _path(args[position]) if 0 <= position < len(args) else "", None
            try:
                if name:
                    sys.audit("open", name, "wb", os.O_WRONLY | os.O_CREAT)
            except OSError as error:
                refusal = getattr(error, "_refusal", None)
                nowhere = os.path.join(os.devnull, os.path.basename(name))
                args = (*args[:position], nowhere, *args[position + 1 :])
            try:
                return function(*args, **options)
            except Exception as error:
                if refusal:
                    error._refusal = refusal  # type: ignore[attr-defined]
                raise

        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(audited, name, getattr(function, name, None))
        return audited


# ---- Frames, errors, names, addresses ----


def _arguments(frame: Any) -> Any:
    """Yield what a function was called with."""
    if frame is None:
        return
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    count += bool(code.co_flags & 4) + bool(code.co_flags & 8)  # *args, **options
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        values = value.values() if isinstance(value, dict) else value
        yield from values if isinstance(values, (tuple, type({}.values()))) else (value,)


def _linked(item: Any, link: str = "f_back") -> Any:
    """Yield a frame and those around it, or the links of a traceback."""
    while item:
        yield item
        item = getattr(item, link)


def _error(number: int, name: str | None = None) -> Any:
    return OSError(number, os.strerror(number), name)


def _refusal_behind(error: BaseException | None) -> dict[str, Any] | None:
    """Return the refusal that an error comes from: its own, or that of one it was raised from."""
    seen: set[int] = set()
    while error and id(error) not in seen:
        if hasattr(error, "_refusal"):
            return error._refusal
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _message(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())[:500]
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _path(value: Any) -> str:
    """Return the text of a path of any kind; "" for anything else."""
    try:
        return os.fsdecode(value)
    except Exception:  # no path, or one that cannot say its name
        return ""


def _is_number(host: Any) -> bool:
    socket, text = sys.modules["_socket"], (_path(host) or str(host)).partition("%")[0]
    try:
        socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def _is_this_machine(host: Any) -> bool:
    """Tell whether a host is the loopback, the only network in the sandbox."""
    socket, text = sys.modules["_socket"], (_path(host) or str(host)).removeprefix("::ffff:")
    names = ("", "None", "localhost", "0.0.0.0", "::", "::1", socket.gethostname())
    return text in names or (text.startswith("127.") and _is_number(text))


def _peak_memory() -> int:
    """Return the most bytes that this process has held, 0 where the system does not tell."""
    try:
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return 0


def _import_hidden(name: str) -> Any:
    """Import a module of Python's, unseen and unshadowed by a file beside the code."""
    if name in sys.modules:
        return sys.modules[name]
    before, path = set(sys.modules), sys.path[:]
    sys.path[:] = [folder for folder in path if folder.startswith(_STANDARD[:-1])]
    try:
        return __import__(name)
    except ImportError:
        return None
    finally:
        sys.path[:] = path
        for new in set(sys.modules) - before:
            del sys.modules[new]
