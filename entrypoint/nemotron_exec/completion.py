"""Shell completion for both programs, as a script for the shell to source."""

from __future__ import annotations

from nemotron_exec.errors import UsageError
from nemotron_exec.options import OPTIONS, click_command

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script for `shell`; `eval "$(nemotron-artifact completion bash)"` in a start-up file brings it to life.

    In bash nemotron-exec completes its own options up to the command, and the command as if it stood alone.
    """
    from click.shell_completion import get_completion_class

    from nemotron_exec.artifact_cli import cli

    kind = get_completion_class(shell)
    if kind is None or shell not in SHELLS:
        raise UsageError("to complete in a shell", f"{shell!r}", f"Name one of {', '.join(SHELLS)}")
    ours = kind(cli, {}, "nemotron-artifact", "_NEMOTRON_ARTIFACT_COMPLETE").source()
    if shell == "bash":
        # bash would take NAME:REF for three words.
        return "COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}\n" + ours + "\n" + _bash()
    return ours + "\n" + kind(click_command(), {}, "nemotron-exec", "_NEMOTRON_EXEC_COMPLETE").source()


def _flags(*, values: bool) -> list[str]:
    return [flag for option in OPTIONS if (option.metavar is not None) is values for flag in option.flags]


def _bash() -> str:
    valued = "|".join(_flags(values=True))
    words = " ".join([*_flags(values=True), *_flags(values=False), "--version", "--help"])
    return f"""_nemotron_exec() {{
    local word i=1
    while (( i < COMP_CWORD )); do
        word=${{COMP_WORDS[i]}}
        case $word in
            --) (( i += 1 )); break ;;
            {valued}) (( i += 2 )) ;;
            -*) (( i += 1 )) ;;
            *) break ;;
        esac
    done
    if (( i > COMP_CWORD )); then
        COMPREPLY=( $(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}") )
    elif (( i == COMP_CWORD )) && [[ ${{COMP_WORDS[COMP_CWORD]}} == -* && ${{COMP_WORDS[COMP_CWORD-1]}} != -- ]]; then
        COMPREPLY=( $(compgen -W "{words}" -- "${{COMP_WORDS[COMP_CWORD]}}") )
    elif (( i == COMP_CWORD )); then
        COMPREPLY=( $(compgen -c -- "${{COMP_WORDS[COMP_CWORD]}}") )
    elif declare -F _command_offset > /dev/null; then
        _command_offset $i
    else
        COMPREPLY=( $(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}") )
    fi
}}
complete -o filenames -o bashdefault -F _nemotron_exec nemotron-exec
"""
