"""Shell completion for both programs, as a script for the shell to source."""

from __future__ import annotations

from nemotron_exec.errors import UsageError
from nemotron_exec.options import OPTIONS, click_command

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click

__all__ = ["SHELLS", "script"]

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, command: click.Command) -> str:
    """The completion script for `shell`.

    A start-up file loads it by `eval "$(nemotron-artifact completion bash)"`. It completes nemotron-exec's own options
    up to the command, and the command as if it stood alone.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None or shell not in SHELLS:
        raise UsageError("to complete in a shell", f"{shell!r}", f"Name one of {', '.join(SHELLS)}")
    ours = kind(command, {}, "nemotron-artifact", "_NEMOTRON_ARTIFACT_COMPLETE").source()
    if shell == "bash":
        # bash would split NAME:REF into three words.
        return "COMP_WORDBREAKS=${COMP_WORDBREAKS//:/}\n" + ours + "\n" + _bash()
    # click completes the options and their values. It knows nothing of COMMAND, which the shell's part completes.
    options = kind(click_command(), {}, "nemotron-exec", "_NEMOTRON_EXEC_COMPLETE").source()
    return "\n".join((ours, options, _zsh() if shell == "zsh" else _fish()))


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


def _zsh() -> str:
    return f"""_nemotron_exec() {{
    local -i i=2
    while (( i < CURRENT )); do
        case ${{words[i]}} in
            --) (( i += 1 )); break ;;
            {"|".join(_flags(values=True))}) (( i += 2 )) ;;
            -*) (( i += 1 )) ;;
            *) break ;;
        esac
    done
    if (( i < CURRENT )) || [[ $i -eq $CURRENT && (${{words[CURRENT]}} != -* || ${{words[CURRENT-1]}} == --) ]]; then
        words=("${{(@)words[i,-1]}}")
        (( CURRENT -= i - 1 ))
        _normal
    else
        _nemotron_exec_completion
        (( compstate[nmatches] )) || _files
    fi
}}
compdef _nemotron_exec nemotron-exec
"""


def _fish() -> str:
    return f"""function __nemotron_exec
    set -l token (commandline -ct)
    set -l words (commandline -opc)
    set -e words[1]
    set -l value no
    while set -q words[1]
        set value no
        switch $words[1]
            case --
                set -e words[1]
                set value never
                break
            case {" ".join(_flags(values=True))}
                set -e words[1]
                set -q words[1]; and set -e words[1]; or set value yes
            case '-*'
                set -e words[1]
            case '*'
                set value never
                break
        end
    end
    if test $value = yes; or begin; test $value = no; and string match -q -- '-*' $token; end
        set -l found (_nemotron_exec_completion)
        if set -q found[1]
            printf '%s\\n' $found
        else
            __fish_complete_path $token
        end
    else
        complete --do-complete=(string join ' ' -- (string escape -- $words) $token)
    end
end
complete --erase --command nemotron-exec
complete --no-files --command nemotron-exec --arguments '(__nemotron_exec)'
"""
