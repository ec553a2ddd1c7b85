"""jaxwiz turns a set of seed instructions into an evaluated code model, in JAX, from a laptop to a TPU pod.

    seeds.jsonl -> evolve -> evolved.jsonl -> data -> token shards -> train -> checkpoint -> convert -> HF folder
                                                                                  |
                                             report <- evaluate <- completions <- sample

Who may import whom: only downwards. Stages talk through files of typed records, never through imports.

    level  packages                                             may import from jaxwiz
    0      records, files, console, config, exit_codes,         level 0
           html_page
    1      text, llm, sharding, sandbox, fanout                 0
    2      model, problems                                      0-1
    3      checkpoint, clean                                    0-2
    4      evolve, data, train, convert, sample, evaluate       0-3; `train -> data.feed` alone crosses stages
    5      plan, stages, step, pipeline, dry_run, launch,       stages by name; a command: what it shows
           doctor, insight, evolve_loop, serve, commands, cli

Every stage has two doors: `config.py` (a frozen dataclass) and `run.py` (`run(cfg) -> Path`, `check(cfg) -> findings`).
This module imports nothing, so that `jaxwiz --help` stays instant.
"""

__version__ = "0.1.0"
