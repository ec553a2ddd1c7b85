from pathlib import Path

import pytest

from jaxwiz.evolve.eliminate import leaks_prompt
from jaxwiz.evolve.operations import PromptError, load_prompts, parse_template
from jaxwiz.llm.protocol import GenerationRequest
from jaxwiz.llm.recording import request_key

FOLDER = Path(__file__).parents[2] / "jaxwiz/evolve/prompts"
NAMES = sorted(
    str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.txt") if path.name != "frame.txt"
)

HARD_TEXTS = [
    "{} {0} {name} {{ }} ${x} $(rm) %s %(a)d %",
    "if a < b && c > \"d\" then 'e' &lt; &amp;",
    "first\r\nsecond\rthird\n\n",
    "\tdef f():\n\t\treturn `x`\n```python\npass\n```",
    "<<PARENT>> <<METHOD>> <<FIRST>> <<SECOND>> <<X>>",
    "### Given Prompt\n### Rewritten Prompt\n\\1 \\g<0> \\n",
    "20. Ümläute, 漢字, \u2028, \u0000, e\u0301, 🧙",
]


def test_the_shipped_operations_are_wizardlms_six_and_wizardcoders_five():
    assert [name for name in NAMES if not name.startswith("code/")] == [
        "in_breadth/rarer_topic",
        "in_depth/add_constraints",
        "in_depth/complicate_input",
        "in_depth/concretize",
        "in_depth/deepen",
        "in_depth/reasoning_steps",
    ]
    assert len([name for name in NAMES if name.startswith("code/")]) == 5
    assert set(load_prompts(NAMES).operations) == set(NAMES)


@pytest.mark.parametrize("parent", HARD_TEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_parent_passes_through_byte_for_byte(name: str, parent: str):
    operation = load_prompts([name]).operations[name]
    before, after = operation.template.pieces
    assert operation.prompt(parent) == before + parent + after
    assert "<<" not in before + after


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_the_judge_sees_both_prompts_byte_for_byte_and_in_order(text: str):
    judge = load_prompts([]).judge
    first, middle, last = judge.pieces
    assert judge.slots == ("FIRST", "SECOND")
    assert judge.render(first=text, second="B" + text) == first + text + middle + "B" + text + last


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_any_text_has_a_journal_key(text: str):
    assert len(request_key("m", GenerationRequest(text, 0, 1, 0.0, 1.0))) == 64


@pytest.mark.parametrize("text", ["no slot", "<<PARENT>> <<PARENT>>", "<<PARENT>> <<OTHER>>"])
def test_a_template_has_each_of_its_slots_exactly_once(text: str):
    with pytest.raises(PromptError, match=r"here\.txt"):
        parse_template(text, ("PARENT",), "here.txt")


def test_leak_phrases_are_the_section_titles_and_the_method():
    operation = load_prompts(["in_depth/deepen"]).operations["in_depth/deepen"]
    assert operation.leak_phrases == (
        " given prompt ",
        " rewritten prompt ",
        " if it asks about an issue ask about that issue in more depth and more breadth ",
    )


def test_a_users_folder_goes_before_ours(tmp_path: Path):
    (tmp_path / "in_depth").mkdir()
    (tmp_path / "in_depth/deepen.txt").write_text("Dig.")
    (tmp_path / "in_depth/rhyme.txt").write_text("Make it rhyme well.")
    prompts = load_prompts(["in_depth/deepen", "in_depth/rhyme", "in_depth/concretize"], tmp_path)
    assert "exactly one method: Dig.\n" in prompts.operations["in_depth/deepen"].prompt("x")
    assert " make it rhyme well " in prompts.operations["in_depth/rhyme"].leak_phrases
    assert "Replace its general concepts" in prompts.operations["in_depth/concretize"].prompt("x")


def test_short_titles_and_methods_of_a_user_are_no_wording_that_could_leak(tmp_path: Path):
    (tmp_path / "in_depth").mkdir()
    (tmp_path / "in_depth/deepen.txt").write_text("Dig.")
    (tmp_path / "in_depth/frame.txt").write_text("<<METHOD>>\n### Task\n<<PARENT>>\n### Evolved form of it\n")
    operation = load_prompts(["in_depth/deepen"], tmp_path).operations["in_depth/deepen"]
    assert operation.leak_phrases == (" evolved form of it ",)
    assert not leaks_prompt("Dig for the task in a log.", "Read a log.", operation)


@pytest.mark.parametrize("name", ["deepen", "in_depth/deeepen", "in_depth/frame", "../judge", "in_depth/../judge"])
def test_an_unknown_operation_is_told_by_name(name: str):
    with pytest.raises(PromptError, match=r"operations: .*(family/method|no prompt file)"):
        load_prompts([name])
