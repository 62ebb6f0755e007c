"""``completion``: the script that makes a shell complete commands, tasks and workers."""

from __future__ import annotations

import click

from .options import common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion_command(shell: str) -> int:
    """Print the completion script of a shell.

    \b
      bash:  echo 'eval "$(cloudai completion bash)"' >> ~/.bashrc
      zsh:   echo 'eval "$(cloudai completion zsh)"' >> ~/.zshrc
      fish:  cloudai completion fish > ~/.config/fish/completions/cloudai.fish

    Names of tasks and workers are completed while a controller runs; none is started for it.
    """
    from click.shell_completion import get_completion_class

    from .entry import COMPLETE, cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "cloudai", COMPLETE).source())
    return 0
