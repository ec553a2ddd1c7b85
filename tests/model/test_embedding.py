"""The look-up on a mesh is a look-up, forward and backward, and never sends the table."""

from tests.devices import run_on_eight_devices

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np
from jaxwiz.model.embedding import look_up
from jaxwiz.sharding.mesh import MeshConfig, make_mesh
from jaxwiz.sharding.rules import activation_sharding, batch_sharding, sharding_of

B, T, D, V = 4, 8, 16, 40
mesh = make_mesh(MeshConfig(fsdp=2, context=2, tensor=2))
keys = jax.random.split(jax.random.key(0), 3)
table, weights = jax.random.normal(keys[0], (V, D)), jax.random.normal(keys[1], (B, T, D))
tokens = jax.random.randint(keys[2], (B, T), 0, V)

def of_mesh(table, tokens, weights):
    return jnp.sum(jnp.sin(look_up(table, tokens, jnp.float32, mesh)) * weights)

def plain(table, tokens, weights):
    return jnp.sum(jnp.sin(table[tokens]) * weights)

placed = (
    jax.device_put(table, sharding_of(mesh, "table", (V, D), ("vocab", "embed"))),
    jax.device_put(tokens, batch_sharding(mesh)),
    jax.device_put(weights, activation_sharding(mesh)),
)
compiled = jax.jit(jax.value_and_grad(of_mesh)).lower(*placed).compile()
found, expected = compiled(*placed), jax.value_and_grad(plain)(table, tokens, weights)
np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
np.testing.assert_allclose(found[1], expected[1], atol=1e-6)
assert found[1].sharding.is_equivalent_to(placed[0].sharding, 2)
gathers = [line for line in compiled.as_text().splitlines() if " all-gather(" in line]
print(len(gathers), all("s32" in line.split(" all-gather(")[0] for line in gathers))
"""


def test_a_split_table_gives_what_a_whole_one_does_and_only_token_ids_are_gathered():
    gathers, all_are_ids = run_on_eight_devices("-c", PROGRAM).split()
    assert int(gathers) > 0 and all_are_ids == "True"
