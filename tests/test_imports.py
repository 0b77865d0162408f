"""The flow goes one way: config, data, model, step, loop, command. No import points back."""

import ast
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent

# What trains, and what judges and compares what was trained, stand on the same parts.
NETS = {'configs', 'console', 'data', 'errors', 'input_pipeline', 'models', 'training'}
# What each part of the code may import, of our own.
ALLOWED = {
    'errors': set(),
    'console': set(),
    'models': {'models'},
    'data': {'console', 'data', 'errors'},
    'configs': {'configs', 'data', 'errors', 'models'},
    'input_pipeline': {'console', 'data', 'errors'},
    'auditing': {'auditing', 'data'},
    'audit': {'auditing', 'command_line', 'console', 'data', 'errors'},
    'training': {*NETS, 'auditing'},
    'command_line': {'configs', 'data', 'errors', 'models'},
    'train': {'command_line', 'errors', 'training'},
    'evaluation': {*NETS, 'evaluation'},
    'evaluate': {'command_line', 'errors', 'evaluation', 'training'},
    'reporting': {'console', 'errors', 'evaluation', 'reporting', 'training'},
    'sweeping': {*NETS, 'evaluation', 'reporting', 'sweeping'},
    'selection': {
        *NETS - {'models'},
        'auditing',
        'evaluation',
        'reporting',
        'selection',
        'sweeping',
    },
    'report': {'command_line', 'console', 'errors', 'evaluation', 'reporting', 'training'},
    'choose': {'command_line', 'configs', 'console', 'errors', 'selection'},
    'sweep': {'command_line', 'configs', 'console', 'errors', 'sweeping', 'training'},
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: imports of our own are absolute'
            yield node.module.split('.')[0]


def test_no_import_points_back():
    ours = {p.stem if p.is_file() else p.name for p in ROOT.iterdir() if p.suffix == '.py'}
    ours |= {p.parent.name for p in ROOT.glob('*/__init__.py')}
    assert ours == set(ALLOWED), 'a new file or folder at the top states what it may import'
    for part, allowed in ALLOWED.items():
        files = (ROOT / part).rglob('*.py') if (ROOT / part).is_dir() else [ROOT / f'{part}.py']
        for path in files:
            back = set(imports(path)) & ours - allowed
            assert not back, f'{path.relative_to(ROOT)} imports {back}'


def test_the_reading_of_studies_stands_on_their_table_alone():
    for path in (ROOT / 'sweeping' / 'reading').glob('*.py'):
        names = {
            node.module
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'sweeping'
        }
        within = {n for n in names if n.startswith('sweeping.reading')}
        assert names - within <= {'sweeping.table'}, path


def test_one_file_names_devices():
    for path in (ROOT / 'training').glob('*.py'):
        named = any(
            isinstance(node, ast.Attribute) and node.attr in ('devices', 'pmap', 'shard_map')
            and isinstance(node.value, ast.Name) and node.value.id == 'jax'
            for node in ast.walk(ast.parse(path.read_text()))
        )  # fmt: skip
        assert named == (path.name == 'data_parallel.py'), path


def test_reports_of_runs_studies_and_choices_need_no_jax():
    code = (
        'import sys, reporting.page, sweeping.reading.page, selection.chart, '
        'selection.report.page; '
        'sys.exit(len({"jax", "flax"} & {*sys.modules}))'
    )
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
