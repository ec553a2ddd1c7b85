"""Programs read from their text, as small as they can be, and how often their operations run."""

import pytest

from jaxwiz.plan.hlo import HloError, Program

LOOP = """HloModule jit_step, is_scheduled=true

%fused (param_0: f32[4,8]) -> f32[8] {
  %param_0 = f32[4,8]{1,0:T(8,128)} parameter(0)
  ROOT %slice = f32[8]{0:T(128)S(1)} bitcast(%param_0)
}

%body (state: (s32[], f32[4,8], s32[])) -> (s32[], f32[4,8], s32[]) {
  %state = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, /*index=2*/s32[]{:T(128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %x = f32[4,8]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %bound = s32[]{:T(128)} get-tuple-element(%state), index=2
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %f = f32[8]{0:T(128)S(1)} fusion(%x), kind=kLoop, calls=%fused, frontend_attributes={kernel_metadata={
"note":"{a line of its own}"
}}, metadata={op_name="f"}
  ROOT %out = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%next, %x, %bound)
}

%condition (state.1: (s32[], f32[4,8], s32[])) -> pred[] {
  %state.1 = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, s32[]{:T(128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  %end = s32[]{:T(128)} get-tuple-element(%state.1), index=2
  ROOT %less = pred[]{:T(512)} compare(%i.1, %end), direction=LT
}

ENTRY %main (x.1: f32[4,8], n: s32[]) -> f32[4,8] {
  %x.1 = f32[4,8]{1,0:T(8,128)} parameter(0)
  %n = s32[]{:T(128)} parameter(1)
  %one = s32[]{:T(128)} constant(1)
  %start = s32[]{:T(128)} copy(%one)
  %limit = s32[]{:T(128)} BOUND
  %init = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, s32[]{:T(128)}) tuple(%start, %x.1, %limit)
  %loop = (s32[]{:T(128)}, f32[4,8]{1,0:T(8,128)}, s32[]{:T(128)}) while(%init), condition=%condition, body=%body
  ROOT %result = f32[4,8]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def times(program: Program) -> dict[str, float]:
    return {execution.op.name: execution.times for execution in program.executions()}


def test_a_loop_runs_from_its_first_value_by_its_step_to_a_bound_that_it_carries():
    program = Program(LOOP.replace("BOUND", "constant(8)"))
    ran = times(program)
    assert ran["f"] == ran["slice"] == 4  # i = 1, 3, 5, 7
    assert ran["result"] == 1
    assert not program.guessed_loops


def test_a_loop_whose_bound_depends_on_data_runs_as_often_as_the_caller_says_and_is_named():
    program = Program(LOOP.replace("BOUND", "copy(%n)"), unknown_trips=16)
    assert times(program)["f"] == 16
    assert program.guessed_loops == {"loop"}


def test_a_trip_count_that_xla_wrote_down_wins():
    text = LOOP.replace("BOUND", "copy(%n)").replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}'
    )
    assert times(Program(text))["f"] == 5


def test_arrays_have_bytes_and_know_whether_they_lie_in_hbm():
    program = Program(LOOP.replace("BOUND", "constant(8)"))
    fusion = program.computations["body"].ops["f"]
    assert (fusion.arrays[0].dims, fusion.arrays[0].bytes, fusion.arrays[0].in_hbm) == ((8,), 32, False)
    assert program.computations["body"].ops["x"].arrays[0].in_hbm
    assert fusion.operands == ("x",)
    assert fusion.called == ["fused"]


def test_operations_within_a_fusion_say_so_and_who_owns_them():
    program = Program(LOOP.replace("BOUND", "constant(8)"))
    inner = next(execution for execution in program.executions() if execution.op.name == "slice")
    assert (inner.fused, inner.owner, inner.within.name) == (True, "body", "fused")


def test_what_is_no_program_is_refused():
    with pytest.raises(HloError, match="no ENTRY"):
        Program("module @jit_step {}")
