"""``rproxy completion``: scripts that complete commands, options and their values.

The scripts are made from the parser; they start no program while the user types.
"""

from __future__ import annotations

import argparse
import re
import shlex
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

from .command import Command, Environ
from .exit_status import OK

FILES = ("FILE", "DIR")  # metavars of options and arguments that are paths


class Option(NamedTuple):
    """An option, or an argument (``names`` empty).  ``value``: its metavar; "" for a switch.

    ``optional``: the value may be left out.  ``repeated``: it may come more than once.
    """

    names: Tuple[str, ...]
    help: str
    value: str
    choices: Tuple[str, ...]
    optional: bool
    repeated: bool

    @property
    def is_path(self) -> bool:
        return self.value in FILES


class Completed(NamedTuple):
    """A command."""

    about: str
    options: Tuple[Option, ...]

    @property
    def words(self) -> List[str]:
        """The words that may come next: the options, and the values of an argument."""
        arguments = [word for option in self.options if not option.names for word in option.choices]
        return arguments + [name for option in self.options for name in option.names]


def commands_of(parser: argparse.ArgumentParser) -> Dict[str, Completed]:
    """All commands by name; "" is rproxy itself."""
    found: Dict[str, Completed] = {}
    options: List[Option] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            abouts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, sub in action.choices.items():
                found[name] = Completed(abouts[name], tuple(map(_option, sub._actions)))
        else:
            options.append(_option(action))
    top = Option((), "the command", "COMMAND", tuple(found), False, False)
    return {"": Completed("", (top, *options)), **found}


def _option(action: argparse.Action) -> Option:
    metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    takes_value = action.nargs != 0
    choices = tuple(map(str, action.choices or ()))
    many = action.nargs in (argparse.ZERO_OR_MORE, argparse.ONE_OR_MORE, argparse.REMAINDER)
    return Option(
        tuple(action.option_strings),
        action.help or "",
        metavar if takes_value else "",
        choices,
        action.nargs == argparse.OPTIONAL,
        many or isinstance(action, argparse._AppendAction),
    )


# ---- bash
BASH = """\
# bash completion of rproxy; in ~/.bashrc: source <(rproxy completion bash)
_rproxy() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" command="" words="" i
    for ((i = 1; i < COMP_CWORD; i++)); do
        if [[ ${{COMP_WORDS[i]}} != -* ]]; then command="${{COMP_WORDS[i]}}"; break; fi
    done
    COMPREPLY=()
    case "$command $prev" in
{values}
    esac
    case "$command" in
{words}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _rproxy rproxy"""


def bash(commands: Dict[str, Completed]) -> str:
    values, words = [], []
    for command, known in commands.items():
        words.append(f"        {shlex.quote(command)}) words={shlex.quote(' '.join(known.words))} ;;")
        for option in known.options:
            places = "|".join(f'"{command} {name}"' for name in option.names)
            if option.names and option.choices:
                reply = f'COMPREPLY=($(compgen -W "{" ".join(option.choices)}" -- "$cur")); return'
                values.append(f"        {places}) {reply} ;;")
            elif option.names and option.value:  # a file, which is the default, or any word
                values.append(f"        {places}) return ;;")
    return BASH.format(values="\n".join(values), words="\n".join(words))


# ---- zsh
ZSH = """\
#compdef rproxy
# zsh completion of rproxy; in ~/.zshrc, after compinit: source <(rproxy completion zsh)
_rproxy() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        _arguments {top}
        return
    fi
    local command="${{words[2]}}"
    shift words
    (( CURRENT-- ))
    case "$command" in
{cases}
    esac
}}
if [[ "${{funcstack[1]}}" == _rproxy ]]; then _rproxy "$@"; else compdef _rproxy rproxy; fi"""


def zsh(commands: Dict[str, Completed]) -> str:
    names = [
        f"        {shlex.quote(name + ':' + known.about.replace(':', ' '))}"
        for name, known in commands.items()
        if name
    ]
    cases = [
        f"        {name}) _arguments {' '.join(_zsh_arguments(known.options))} ;;"
        for name, known in commands.items()
        if name
    ]
    top = [option for option in commands[""].options if option.names]
    return ZSH.format(commands="\n".join(names), top=" ".join(_zsh_arguments(top)), cases="\n".join(cases))


def _zsh_arguments(options: Sequence[Option]) -> Iterator[str]:
    for option in options:
        value, star = _zsh_value(option), "*" if option.repeated else ""
        if not option.names:
            yield shlex.quote(f"{star}{value}")
        for name in option.names:
            yield shlex.quote(f"{star}{name}[{_zsh_text(option.help)}]{value}")


def _zsh_value(option: Option) -> str:
    if not option.value and not option.choices:
        return ""
    how = f"({' '.join(option.choices)})" if option.choices else "_files" if option.is_path else " "
    colon = "::" if option.optional else ":"
    return f"{colon}{_zsh_text((option.value or 'value').lower())}:{how}"


def _zsh_text(text: str) -> str:
    return re.sub(r"([\[\]:\\])", r"\\\1", text)


# ---- fish
def fish(commands: Dict[str, Completed]) -> str:
    lines = [
        "# fish completion of rproxy; once: rproxy completion fish > ~/.config/fish/completions/rproxy.fish"
    ]
    lines.append("complete -c rproxy -f")
    for name, known in commands.items():
        condition = f"__fish_seen_subcommand_from {name}" if name else "__fish_use_subcommand"
        lines += [
            f"complete -c rproxy -n {condition} -a {other} -d {_fish_text(commands[other].about)}"
            for other in (commands if not name else ())
            if other
        ]
        lines += [
            f"complete -c rproxy -n {_fish_text(condition)} {_fish_option(option)}"
            for option in known.options
            if option.names or name and (option.choices or option.is_path)
        ]
    return "\n".join(lines)


def _fish_option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    if option.choices:
        value = f"-{'x' if names else ''}a {_fish_text(' '.join(option.choices))}"
    elif option.is_path:
        value = "-rF" if names else "-F"
    else:
        value = "-x" if option.value else ""
    return " ".join(filter(None, [*names, value, f"-d {_fish_text(option.help)}"]))


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def run(args: argparse.Namespace, environ: Environ) -> int:
    from .main import make_parser  # which imports this module

    print(SHELLS[args.shell](commands_of(make_parser())))
    return OK


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=tuple(SHELLS), help="the shell")


COMMAND = Command(
    "print the completions for a shell",
    "rproxy completion fish > ~/.config/fish/completions/rproxy.fish",
    run,
    add_options,
)
