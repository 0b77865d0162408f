"""What every command shares: flags, the --config flag, --help, and errors in one line."""

import ast
import errno
import io
import os
import pathlib
import re
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from absl import flags, logging

from configs import datasets, default
from configs.sweeps import default as sweep
from data import augmentation
from errors import UserError, did_you_mean
from models import FAMILIES
from models.nets import NETS

# Conditions of the machine that the user can mend; any other OSError is a bug of ours.
_MENDABLE = {
    errno.ENOSPC: 'free some space',
    errno.EDQUOT: 'free some of your quota',
    errno.EACCES: 'mend its permissions, or choose another folder',
    errno.EROFS: 'choose a folder you may write to',
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
# What --config may name, by what the command works on: files of this folder, such as this one.
_CONFIGS = {
    'config': ('configs', 'resnet_small.py'),
    'sweep': ('configs/sweeps', 'depth.py'),
}


def run(
    main: Callable[..., int],
    usage: str,
    takes: str = 'config',
    instead_of_config: Sequence[str] = (),
) -> NoReturn:
    """Parses the command line, runs `main` and exits with the status it returns.

    What the user can mend ends in one line on standard error and status 2 (a full disk: 1); an
    interruption outside training in status 130.

    Args:
      main: reads `flags.FLAGS`; is given the run folders that are named.
      usage: what `--help` prints before the flags and fields.
      takes: what the command works on: `config` (of one run, by --config), `sweep` (of many),
        `data` (other flags alone) or `runs` (run folders, named before or between the flags).
      instead_of_config: flags with which --config may be left out.
    """
    name = pathlib.Path(sys.argv[0]).name
    logging.set_verbosity(logging.FATAL)  # What Orbax and TFDS log below that we say ourselves.
    # Outside the training loop, which saves first, SIGTERM ends a command as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # Names of files may be no text in any encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    trains = takes in _CONFIGS
    goes_on = '; the same command goes on from its checkpoint, if any' if trains else ''

    def interrupted() -> NoReturn:
        sys.stdout.flush()
        print(f'{name}: Interrupted{goes_on}.', file=sys.stderr, flush=True)
        os._exit(130)  # XLA's threads may still compile, and crash in an orderly end.

    sys.unraisablehook = partial(_unraisable, interrupted)
    try:
        if any(argument in ('-h', '--help', '--helpfull') for argument in sys.argv[1:]):
            print(_help(usage, takes))
            sys.exit(0)
        sys.exit(main(*_parse(sys.argv, takes, instead_of_config)))
    except UserError as error:
        message, status = str(error), 2
    except KeyboardInterrupt:
        interrupted()
    except BrokenPipeError:  # Who reads the output, such as head, has seen enough.
        os._exit(141)
    except OSError as error:
        if error.errno not in _MENDABLE:
            raise
        remedy = f'{_MENDABLE[error.errno]}{goes_on if error.errno in _FULL else ""}'
        message, status = f'{error.strerror}: {error.filename}: {remedy}.', 1
    sys.stdout.flush()
    print(f'{name}: {message}', file=sys.stderr, flush=True)
    sys.exit(status)


def _unraisable(interrupted: Callable[[], NoReturn], unraisable: Any) -> None:
    """Prints an exception nobody could catch, but for those that say nothing new on a full disk.

    When one write has failed, tensorstore's others still report, from their threads, to an event
    loop that orbax has closed; what failed is raised in the main thread. A signal that comes while
    Python clears away an object, which XLA does much of, would go unheard.
    """
    if unraisable.exc_type is KeyboardInterrupt:
        interrupted()
    if str(unraisable.exc_value) != 'Event loop is closed':
        sys.__unraisablehook__(unraisable)


def _parse(argv: list[str], takes: str, instead_of_config: Sequence[str]) -> list[str]:
    """Parses flags and overrides of config fields into `flags.FLAGS`; returns the run folders.

    Raises:
      UserError: for whatever is wrong with them.
    """
    fields: dict[str, Any] = {}
    if takes in _CONFIGS:
        given = _given(argv, 'config')
        if given or not any(_given(argv, name) is not None for name in instead_of_config):
            if not given:
                _check_flags(argv)  # What is missing may be there with a typo.
                usual = '/'.join(_CONFIGS[takes])
                others = ''.join(f'--{name}, ' for name in instead_of_config)
                raise UserError(f'--config is missing: try --config={usual}, {others}or --help.')
            fields = default.flatten(_base_config(given, takes))
        for argument in argv[1:]:
            if match := re.match(r'--?(?:no)?config\.([^=]*)', argument):
                _check_field(match.group(1), fields)
    try:
        rest = flags.FLAGS(argv)
    except flags.UnrecognizedFlagError as error:
        raise _unknown(error.flagname) from error
    except (flags.Error, TypeError) as error:
        raise UserError(_wrong_type(argv, fields) or str(error)) from error
    if takes == 'runs':
        return rest[1:]
    if len(rest) > 1:
        hint = (
            'a field is set as --config.NAME=VALUE, the data set as --config=FILE:DATASET.'
            if takes in _CONFIGS
            else 'a flag is set as --NAME=VALUE.'
        )
        raise UserError(f'Unexpected argument {rest[1]!r}: {hint}')
    return []


def _check_flags(argv: Sequence[str]) -> None:
    """Checks that what looks like a flag is one.

    Raises:
      UserError: names the first that is none.
    """
    for argument in argv[1:]:
        match = re.match(r'--?([A-Za-z_]\w*)', argument)
        if match and not {match.group(1), match.group(1).removeprefix('no')} & {*flags.FLAGS}:
            raise _unknown(match.group(1))


def _unknown(flag: str) -> UserError:
    return UserError(f'Unknown flag --{flag}.{did_you_mean(flag, [*flags.FLAGS])}')


def _given(argv: Sequence[str], flag: str) -> str | None:
    """Returns the value of a flag, '' where it stands without one; None where it is not given."""
    value = None
    for argument, following in zip(argv, [*argv[1:], ''], strict=True):
        if re.fullmatch(f'--?{flag}', argument):
            value = following
        elif re.match(f'--?{flag}=', argument):
            value = argument.partition('=')[2]
    return value


def _base_config(given: str, takes: str) -> Any:
    """Returns the config that `--config` names, before overrides."""
    usual, _ = _CONFIGS[takes]
    path, *dataset = given.split(':', 1)
    if not pathlib.Path(path).is_file():
        folders = {pathlib.Path(path).parent, pathlib.Path(usual)}
        known = sorted(file for folder in folders for file in _config_files(folder))
        raise UserError(
            f'There is no config file {path!r}.{did_you_mean(path, known)} There are '
            f'{", ".join(known)}.'
        )
    try:
        config = runpy.run_path(path)['get_config'](*dataset).lock()
    except UserError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        where = f', line {lines[-1]}' if lines else ''
        reason = ' '.join(str(error).split()) or 'failed'
        raise UserError(f'{path}{where}: {type(error).__name__}: {reason}') from error
    if ('space' in config) != (takes == 'sweep'):
        kind, command = ('one run', 'train.py') if takes == 'sweep' else ('a sweep', 'sweep.py')
        raise UserError(f'{path} is the config of {kind}: python {command} --config={given}')
    return config


def _config_files(folder: pathlib.Path) -> list[str]:
    """Returns the files of a folder that make configs, without those they begin with."""
    return [
        os.fspath(path)
        for path in folder.glob('*.py')
        if path.name != 'default.py' and '\ndef get_config(' in path.read_text(errors='replace')
    ]


def _check_field(name: str, fields: Mapping[str, Any]) -> None:
    inside = [field for field in fields if field.startswith(f'{name}.')]
    if inside:
        raise UserError(f'config.{name} is a group: set one of its fields, {", ".join(inside)}.')
    if name == 'space' and name in fields:
        raise UserError(
            'config.space cannot be set here: write a sweep file of your own, as short as '
            'configs/sweeps/width.py.'
        )
    if name in fields:
        return
    if not fields:
        raise UserError(f'config.{name} is set, but --config is missing.')
    raise UserError(f'config.{name} is no field of this config.{default.hint(name, fields)}')


def _wrong_type(argv: list[str], fields: Mapping[str, Any]) -> str:
    """Says which override cannot be read as its field's type."""
    for argument in argv:
        match = re.match(r'--?config\.([^=]+)=(.*)', argument)
        field = fields.get(match.group(1)) if match else None
        if match and field is not None and not isinstance(field, str):
            name, text = match.groups()
            kind = type(field)
            try:
                value = ast.literal_eval(text.capitalize() if kind is bool else text)
            except (SyntaxError, ValueError):
                value = text
            if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
                return f'config.{name} must be of type {kind.__name__}; it is {text!r}.'
    return ''


def _help(usage: str, takes: str) -> str:
    lines = [usage.strip(), '', 'Flags:']
    own = [name for name in flags.FLAGS
           if flags.FLAGS.find_module_defining_flag(name) == sys.argv[0]]  # fmt: skip
    for name in sorted(own, key=lambda name: (name != 'config', name)):
        if flags.FLAGS[name].help:
            lines.append(f'  --{name}: {flags.FLAGS[name].help}')
    if takes == 'config':
        lines += _help_on_fields()
    if takes == 'sweep':
        lines += _help_on_sweeps()
    if takes in ('config', 'data'):
        lines += _help_on_augmentation()
    return '\n'.join(lines)


def _help_on_augmentation() -> list[str]:
    lines = ['', f'Augmentation: presets {", ".join(augmentation.PRESETS)}, and NAME=VALUE of:']
    for name, operation in augmentation.OPERATIONS.items():
        lines.append(f'  {name} = 0 (to {operation.most:g}): {operation.meaning}')
    return [*lines, f'  fill [{", ".join(augmentation.FILLS)}]: what lies outside of the image']


def _help_on_fields() -> list[str]:
    lines = ['', 'Config fields, each set with --config.NAME=VALUE (NAME = default: meaning):']
    lines += _describe(default.FIELDS)
    for family in FAMILIES:
        fields = {n: f for n, f in default.described(family).items() if n.startswith('model.')}
        lines += ['', f'Fields of the family {family}:', *_describe(fields)]
    lines += ['', f'Nets of configs/nets.py:NET:DATASET: {", ".join(NETS)}.']
    return [*lines, '', f'Data sets with settings of their own: {", ".join(datasets.DATASETS)}.']


def _help_on_sweeps() -> list[str]:
    lines = ['', 'Fields of a sweep, each set with --config.NAME=VALUE (NAME = default: meaning):']
    lines += _describe(sweep.FIELDS)
    lines += ['  base.NAME: a field of training, as --config.base.epochs=5; python train.py --help '
              'says what they are.']  # fmt: skip
    lines += ['', 'Ready sweeps, each for any data set, as FILE:DATASET:']
    for path in sorted(_config_files(pathlib.Path(_CONFIGS['sweep'][0]))):
        question = ast.get_docstring(ast.parse(pathlib.Path(path).read_text())) or ''
        lines.append(f'  {path}: {question.partition(chr(10))[0]}')
    return lines


def _describe(fields: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, f in fields.items():
        choices = f.metadata['choices']
        known = f' [{", ".join(choices)}]' if choices else ''
        lines.append(f'  {name} = {f.default!r}: {f.metadata["meaning"]}{known}')
    return lines
