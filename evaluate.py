"""``python evaluate.py MODEL [--suite zeroclue] …`` is ``mengzi-mt evaluate …``.

This file has the name of Hugging Face's ``evaluate`` package and stands where Python looks first. So when something
*imports* it, it finds the installed package and puts that in its own place; when it is *run*, it is our command.
"""

if __name__ == "evaluate":
    import importlib.machinery
    import importlib.util
    import pathlib
    import sys

    _here = pathlib.Path(__file__).resolve().parent
    _elsewhere = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != _here]
    _spec = importlib.machinery.PathFinder.find_spec("evaluate", _elsewhere)
    if _spec is None or _spec.loader is None:
        raise ModuleNotFoundError("No module named 'evaluate'", name="evaluate")
    _module = sys.modules["evaluate"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_module)
elif __name__ == "__main__":
    from mengzi_mt.cli.main import script

    script("evaluate")
