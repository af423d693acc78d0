"""Check that the package keeps its structure: which module may know which, and what.

    python tools/structure.py       a line for each breach, and the reaches into privates
    python tools/structure.py -v    the imports from layer to layer as well

Four rules, read from the source with `ast`; nothing is imported.

arrows    An import points to the same layer or to a lower one; LAYERS lists them. An import
          inside a function counts like any other. Since an import of `a.b` runs `a` first, it is
          an import of `a` as well, unless the importing module lies in `a` itself.
circles   No module imports itself by way of others, inside functions or not.
runtime   Only the layers that LAYERS marks may ask which runtime this is. These ask:
              `sys.platform` and its like,
              an import of a module that only one runtime has,
              an import with a handler for its ImportError,
              hasattr() and getattr() of a module from outside the package.
privates  There are at most LIMIT reaches into another object's privates in 1,000 lines of the
          package. A reach is `x._name`, or getattr(x, "_name") and its like, where x is not
              self or cls, as the first argument of a method, in it and in functions within it,
              super(),
              `other`, or the class by its name, in a class that itself defines `_name`.
          All else counts, such as an instance of the same class under any other name, or `self`
          in a function that is no method. An import of a private name counts as well, unless it
          is a module of the same package. Names such as `__len__` are not private, nor are those
          in DOCUMENTED.

The files of tools/ are held to the rule of circles; their reaches are counted and shown.

Exit status: 0; 1 if a rule is broken.
"""

import argparse
import ast
import collections
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = "postcache"

# The layers, the highest first. `rooms`: modules and packages directly below the package; what is
# named nowhere is a face. `asks`: may ask which runtime this is.
Layer = collections.namedtuple("Layer", "name rooms asks")
LAYERS = (
    Layer("host", ("host", "__main__"), True),  # CPython only
    Layer("names", ("__init__",), False),  # the public names, loaded on first use
    Layer("faces", (), False),
    Layer("uplink", ("uplink", "assemble", "checks", "envelope", "options", "stats"), False),
    Layer("send", ("send",), False),
    Layer("log", ("log",), False),
    Layer("ports", ("ports",), True),
)
FACES = next(layer for layer in LAYERS if not layer.rooms)

LIMIT = 2  # reaches into privates, per 1,000 lines
# Public by their documentation, in spite of the underscore.
DOCUMENTED = {"_asdict", "_exit", "_field_defaults", "_fields", "_make", "_replace"}
# What tells one runtime from another.
TELLING = {
    "sys": {"hexversion", "implementation", "platform", "version", "version_info"},
    "os": {"name", "uname"},
}
TELLING_MODULES = {"micropython", "platform"}
LOOKING = {"delattr", "getattr", "hasattr", "setattr"}

# `module`: its name without the package's, such as "log.recover"; "__init__" for the package.
Module = collections.namedtuple("Module", "module path is_package tree lines")
Import = collections.namedtuple("Import", "source target line")
Breach = collections.namedtuple("Breach", "path line what rule")


# -- modules and their imports --------------------------------------------------------------------


def load(folder, project):
    """Return {name: Module} of the .py files below `folder`; paths are relative to `project`."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = list(file.relative_to(folder).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package and len(parts) > 1:
            parts.pop()
        text = file.read_text(encoding="utf-8")
        name = ".".join(parts)
        path = file.relative_to(project).as_posix()
        tree = ast.parse(text, path)
        found[name] = Module(name, path, is_package, tree, len(text.splitlines()))
    return found


def _imports_in(tree):
    """Return the import statements in a tree, those in functions as well."""
    return [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]


def _parents(name):
    """Return the names of a module and of the packages that it lies in."""
    parts = name.split(".")
    return {".".join(parts[: i + 1]) for i in range(len(parts))}


def imports(modules, package=PACKAGE):
    """
    Return every Import of one of `modules` by another.

    Args:
        modules: {name: Module}, as load() returns it.
        package: the name under which they are imported absolutely; "" when each is a top-level
            module.
    """
    found = set()
    for module in modules.values():
        for node in _imports_in(module.tree):
            for target in _targets(node, module, modules, package):
                # A package that both lie in is loaded already; but a name may come from it.
                loaded = _parents(target) - _parents(module.module)
                for name in loaded | {target} - {module.module}:
                    found.add(Import(module.module, name, node.lineno))
    return sorted(found, key=lambda edge: (edge.source, edge.line, edge.target))


def _targets(node, module, modules, package):
    """Return the names of the `modules` that an import statement names."""
    if isinstance(node, ast.Import):
        bases = [_within(alias.name, package) for alias in node.names]
        return [_nearest(base, modules) for base in bases if base is not None]
    base = node.module or ""
    if node.level:
        # The package is "__init__" among the names, and has no part in what is below it.
        here = [part for part in module.module.split(".") if part != "__init__"]
        up = node.level - (1 if module.is_package else 0)
        here = here[: len(here) - up]
        base = ".".join(here + ([base] if base else []))
    else:
        base = _within(base, package)
        if base is None:
            return []
    found = []
    for alias in node.names:
        child = base + "." + alias.name if base else alias.name
        found.append(child if child in modules else _nearest(base, modules))
    return [name for name in found if name]


def _within(name, package):
    """Return what is left of an absolute module name below the package; None if not in it."""
    if not package:
        return name
    first, _, rest = name.partition(".")
    return rest if first == package else None


def _nearest(name, modules):
    """Return the longest beginning of a dotted name that is a module, "" if there is none."""
    if not name:
        return "__init__" if "__init__" in modules else ""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


# -- the rules ------------------------------------------------------------------------------------


def layer_of(name):
    """Return the Layer that a module belongs to."""
    room = name.split(".")[0]
    return next((layer for layer in LAYERS if room in layer.rooms), FACES)


def check_arrows(modules, edges):
    """Return a Breach for each import that points up, or whose target cannot be told."""
    found = {}
    for edge in edges:
        source = layer_of(edge.source)
        target = layer_of(edge.target)
        if LAYERS.index(target) < LAYERS.index(source):
            what = f"{source.name} imports {edge.target}, of the higher layer {target.name}"
            # One for each line: a module comes after the package that it is in, and replaces it.
            place = modules[edge.source].path, edge.line
            found[place] = Breach(*place, what, "arrows")
    for module in modules.values():
        for node in ast.walk(module.tree):
            named = _name(node) == "__import__" or "importlib" in _outside(node)
            if named and layer_of(module.module).name != "host":
                place = module.path, getattr(node, "lineno", 0)
                found[place] = Breach(*place, "imports what this check cannot see", "arrows")
    return list(found.values())


def _name(node):
    """Return the name that an expression consists of, "" if it is none."""
    return node.id if isinstance(node, ast.Name) else ""


def _outside(node):
    """Return the top-level modules that an absolute import statement names."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [node.module or ""]
    return {name.split(".")[0] for name in names}


def check_circles(modules, edges):
    """Return a Breach for each group of modules that import each other, with its shortest way."""
    lines = {}  # {module: {what it imports: line}}
    for edge in reversed(edges):
        lines.setdefault(edge.source, {})[edge.target] = edge.line
    ways = {name: _ways(name, lines) for name in modules}
    found = []
    left = sorted(name for name in modules if name in ways[name])
    while left:
        group = [name for name in left if name in ways[left[0]] and left[0] in ways[name]]
        left = [name for name in left if name not in group]
        first = min(group, key=lambda name: len(ways[name][name]))
        way = ways[first][first]
        what = "a circle of imports: " + " -> ".join(way)
        found.append(Breach(modules[first].path, lines[first][way[1]], what, "circles"))
    return found


def _ways(start, lines):
    """Return {module: the shortest way of imports to it, a list} of all that `start` reaches."""
    ways = {}
    waiting = collections.deque([[start]])
    while waiting:
        way = waiting.popleft()
        for target in sorted(lines.get(way[-1], ())):
            if target not in ways:
                ways[target] = [*way, target]
                waiting.append(ways[target])
    return ways


def check_runtime(modules):
    """Return a Breach for each place that asks for its runtime where that is not allowed."""
    found = []
    for module in modules.values():
        if not layer_of(module.module).asks:
            asked = _Asking()
            asked.visit(module.tree)
            found += [Breach(module.path, line, what, "runtime") for line, what in asked.found]
    return found


class _Asking(ast.NodeVisitor):
    """Collects `found`, the (line, what) of questions for the runtime."""

    def __init__(self):
        self.found = []
        self._modules = {}  # names that are bound to modules from outside: {name: module}

    def _add(self, node, what):
        self.found.append((node.lineno, "asks for its runtime: " + what))

    def visit_Import(self, node):
        for alias in node.names:
            first = alias.name.split(".")[0]
            self._modules[alias.asname or first] = alias.name if alias.asname else first
            if first in TELLING_MODULES:
                self._add(node, "import " + alias.name)

    def visit_ImportFrom(self, node):
        module = "" if node.level else node.module or ""
        if module in TELLING_MODULES:
            self._add(node, "import " + module)
        for alias in node.names:
            if alias.name in TELLING.get(module, ()):
                self._add(node, module + "." + alias.name)

    def visit_Attribute(self, node):
        module = self._modules.get(_name(node.value), "")
        if node.attr in TELLING.get(module, ()):
            self._add(node, module + "." + node.attr)
        self.generic_visit(node)

    def visit_Call(self, node):
        if _name(node.func) in LOOKING and node.args:
            module = self._modules.get(_name(node.args[0]))
            if module:
                self._add(node, f"{_name(node.func)}({module}, ...)")
        self.generic_visit(node)

    def visit_Try(self, node):
        if any(_imports_in(part) for part in node.body):
            catching = {"ImportError", "ModuleNotFoundError"}
            if all(isinstance(part, (ast.Import, ast.ImportFrom)) for part in node.body):
                catching |= {"Exception", "BaseException"}  # nothing else to catch there
            for handler in node.handlers:
                types = ast.walk(handler.type or ast.Name("BaseException"))
                if catching & {_name(kind) for kind in types}:
                    self._add(handler, "an import whose ImportError is caught")
        self.generic_visit(node)


def reaches(modules):
    """Return a Breach for each reach into another object's privates."""
    found = []
    for module in modules.values():
        reaching = _Reaching()
        reaching.visit(module.tree)
        found += [Breach(module.path, line, what, "privates") for line, what in reaching.found]
    return found


def _is_private(name):
    dunder = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and not dunder and name != "_" and name not in DOCUMENTED


class _Reaching(ast.NodeVisitor):
    """Collects `found`, the (line, what) of reaches into privates."""

    def __init__(self):
        self.found = []
        self._own = set()  # names that stand for the object whose method this is
        self._class = None  # the class around, as (its name, the privates that it defines)
        self._in_body = False  # a function that is met now is a method

    def _within(self, node, own, around, in_body):
        before = self._own, self._class, self._in_body
        self._own, self._class, self._in_body = own, around, in_body
        self.generic_visit(node)
        self._own, self._class, self._in_body = before

    def visit_ClassDef(self, node):
        self._within(node, set(), (node.name, _defined(node)), True)

    def _function(self, node):
        arguments = node.args.posonlyargs + node.args.args
        names = [arg.arg for arg in arguments + node.args.kwonlyargs]
        own = self._own - set(names)
        if self._in_body:
            own |= set(names[:1]) & {"self", "cls"}
        self._within(node, own, self._class, False)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _function  # noqa: N815 - ast's

    def _is_own(self, node, attribute):
        if isinstance(node, ast.Call):
            return _name(node.func) == "super"
        name = _name(node)
        if name in self._own:
            return True
        return self._class is not None and (
            name in ("other", self._class[0]) and attribute in self._class[1]
        )

    def _look(self, node, value, attribute):
        if _is_private(attribute) and not self._is_own(value, attribute):
            self.found.append((node.lineno, f"reaches for {ast.unparse(value)}.{attribute}"))

    def visit_Attribute(self, node):
        self._look(node, node.value, node.attr)
        self.generic_visit(node)

    def visit_Call(self, node):
        if _name(node.func) in LOOKING and len(node.args) > 1:
            attribute = getattr(node.args[1], "value", None)
            if isinstance(attribute, str):
                self._look(node, node.args[0], attribute)
        self.generic_visit(node)

    def visit_ImportFrom(self, node):
        for alias in node.names:
            if _is_private(alias.name) and (node.level != 1 or node.module):
                self._import(node, alias.name)
        inner = (node.module or "").split(".")
        # `from ._x import y`: a private module of the package that this one lies in.
        for part in inner[1:] if node.level < 2 else inner:
            if _is_private(part):
                self._import(node, part)

    def visit_Import(self, node):
        for alias in node.names:
            # `import _thread`: a top-level module is nobody's private.
            for part in alias.name.split(".")[1:]:
                if _is_private(part):
                    self._import(node, part)

    def _import(self, node, name):
        self.found.append((node.lineno, f"imports {name}, a private name of another module"))


def _defined(node):
    """Return the private names that a class defines: in its body, or by way of self."""
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute) and _name(child.value) == "self":
            found |= {child.attr} if isinstance(child.ctx, ast.Store) else set()
    for part in node.body:
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(part.name)
        elif isinstance(part, (ast.Assign, ast.AnnAssign)):
            found |= {name.id for name in ast.walk(part) if isinstance(name, ast.Name)}
            found |= {name.value for name in ast.walk(part) if isinstance(name, ast.Constant)}
    return found


# -- the whole ------------------------------------------------------------------------------------


def rate(found, modules):
    """Return the reaches per 1,000 lines."""
    return 1000 * len(found) / max(1, sum(module.lines for module in modules.values()))


def check(project, say=print, verbose=False):
    """Check the project in the folder `project`; return the breaches."""
    modules = load(project / "lib" / PACKAGE, project)
    edges = imports(modules)
    tools = load(project / "tools", project)
    breaches = check_arrows(modules, edges)
    breaches += check_circles(modules, edges)
    breaches += check_circles(tools, imports(tools, ""))
    breaches += check_runtime(modules)
    if verbose:
        for edge in edges:
            source, target = layer_of(edge.source).name, layer_of(edge.target).name
            if source != target:
                say(f"{source} -> {target}: {edge.source}:{edge.line} imports {edge.target}")
    for where, those in (("lib/" + PACKAGE, modules), ("tools", tools)):
        found = reaches(those)
        over = those is modules and rate(found, those) > LIMIT
        if over:
            breaches += found
        else:
            for breach in found:
                say(_line(breach) + " (allowed, and counted)")
        lines = sum(module.lines for module in those.values())
        say(
            f"structure: {where}: {len(found)} reaches into privates in {lines:,} lines, "
            f"{rate(found, those):.1f} per 1,000"
            + (f"; at most {LIMIT} are allowed" if those is modules else "")
        )
    return breaches


def _line(breach):
    return f"{breach.path}:{breach.line}: {breach.what} [{breach.rule}]"


def main(arguments=None):
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description="Check that the package keeps its structure.")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the arrows")
    parser.add_argument("--project", type=Path, default=PROJECT, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    breaches = check(options.project.resolve(), verbose=options.verbose)
    for breach in breaches:
        print(_line(breach))
    if not breaches:
        print("structure: arrows, circles, runtime and privates are as they should be.")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
