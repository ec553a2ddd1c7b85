"""`jaxwiz serve`: answer HTTP requests in OpenAI's protocol with a checkpoint."""

import argparse
from pathlib import Path

SUMMARY = "serve a checkpoint over HTTP in OpenAI's protocol"
DESCRIPTION = """Settings are those of docs/serving.md, for instance port=8001 slots=32 template=chatml.

It listens on loopback; elsewhere it wants a key (api_key_env=NAME or api_key_file=FILE).
Exit code 0 after SIGTERM, once what is under way has been answered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="the checkpoint folder")
    parser.add_argument("overrides", nargs="*", metavar="a.b=value", help="settings that replace the defaults")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file of settings")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code once the server has ended.

    Raises:
      UserError: a setting or the checkpoint is unusable.
    """
    from jaxwiz.config import parse_config, read_config_file, read_overrides
    from jaxwiz.files import UserError
    from jaxwiz.serve.config import ServeConfig

    base = {} if options.config is None else read_config_file(options.config)
    data = read_overrides(options.overrides, {**base, "checkpoint": str(options.checkpoint)})
    config = parse_config(data, ServeConfig, str(options.config or "jaxwiz serve"))
    try:
        from jaxwiz.serve.run import serve
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; the server needs it: pip install 'jaxwiz[serve]'") from None
    return serve(config)
