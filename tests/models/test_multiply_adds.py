"""Multiply-adds by operator, against arithmetic and torch's own counter; with numbers and without."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.ops import deform_conv2d

from tests.examples import examples
from wnexplore.models.multiply_adds import counted


def _count(function: Callable[..., object], *tensors: Tensor) -> int:
    """What a function costs, the same in every way of calling it."""
    found = set()
    for device in ("cpu", "meta"):
        for mode in (torch.no_grad, torch.inference_mode):
            with mode(), counted(nn.Identity()) as products:
                function(*(tensor.to(device) for tensor in tensors))
            assert not products.uncounted
            found.add(products.total)
    assert len(found) == 1, found
    return found.pop()


def _zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (torch.matmul, [(4, 4), (3, 2, 4, 9)], 3 * 2 * 4 * 4 * 9),
        (torch.matmul, [(3, 2, 5, 4), (4, 9)], 3 * 2 * 5 * 4 * 9),
        (torch.matmul, [(3, 1, 5, 4), (2, 4, 9)], 3 * 2 * 5 * 4 * 9),
        (torch.matmul, [(4,), (4,)], 4),
        (torch.matmul, [(5, 4), (4,)], 20),
        (torch.matmul, [(4,), (4, 5)], 20),
        (torch.matmul, [(3, 5, 4), (4,)], 60),
        (torch.matmul, [(4,), (3, 4, 5)], 60),
        (torch.mv, [(5, 4), (4,)], 20),
        (torch.dot, [(7,), (7,)], 7),
        (torch.inner, [(5, 4), (3, 4)], 60),
        (torch.addmv, [(5,), (5, 4), (4,)], 20),
        (torch.addmm, [(5, 3), (5, 4), (4, 3)], 60),
        (torch.baddbmm, [(1, 5, 3), (2, 5, 4), (2, 4, 3)], 120),
        (torch.addbmm, [(5, 3), (2, 5, 4), (2, 4, 3)], 120),
        (lambda a, b: torch.tensordot(a, b, dims=2), [(6, 3, 4), (3, 4, 5)], 6 * 12 * 5),
        (torch.outer, [(5,), (4,)], 0),
        (torch.addr, [(5, 4), (5,), (4,)], 0),
        (torch.mul, [(5, 4), (5, 4)], 0),
        (lambda a, b: torch.einsum("nchw,nc->nchw", a, b), [(2, 3, 4, 5), (2, 3)], 0),
        (lambda a, b: torch.einsum("i,j->ij", a, b), [(5,), (4,)], 0),
        (lambda a, b: torch.einsum("nchw,nc->n", a, b), [(2, 3, 4, 5), (2, 3)], 2 * 3),
        (lambda a, b: torch.einsum("nhid,nhjd->nhij", a, b), [(2, 3, 4, 6), (2, 3, 5, 6)], 2 * 3 * 4 * 5 * 6),
        (lambda a, b: torch.einsum("...i,oi->...o", a, b), [(2, 3, 6), (4, 6)], 2 * 3 * 6 * 4),
        (functional.linear, [(2, 3, 6), (4, 6), (4,)], 2 * 3 * 6 * 4),
        (functional.linear, [(6,), (4, 6)], 24),
        (functional.bilinear, [(2, 3), (2, 5), (4, 3, 5)], 2 * 4 * (3 * 5 + 5)),
        (torch.cdist, [(2, 5, 8), (2, 7, 8)], 2 * 5 * 7 * 8),
        (torch.cdist, [(30, 8), (40, 8)], 30 * 40 * 8),
        (lambda a, b: torch.cdist(a, b, p=1.0), [(5, 8), (7, 8)], 0),
        (functional.conv1d, [(2, 6, 9), (4, 6, 3)], 2 * 4 * 7 * 18),
        (lambda a, b: functional.conv2d(a, b, groups=3), [(2, 6, 9, 9), (6, 2, 3, 3)], 2 * 6 * 49 * 18),
        (lambda a, b: functional.conv2d(a, b, padding="same"), [(1, 2, 5, 5), (3, 2, 4, 4)], 3 * 25 * 32),
        (functional.conv3d, [(1, 2, 4, 5, 6), (3, 2, 3, 3, 3)], 3 * 2 * 3 * 4 * 54),
        (lambda a, b: functional.conv_transpose2d(a, b, stride=2, groups=2), [(2, 4, 5, 5), (4, 3, 4, 4)],
         2 * 4 * 25 * 48),
        (functional.conv_transpose1d, [(1, 4, 5), (4, 3, 2)], 4 * 5 * 6),
        (torch.conv_tbc, [(9, 2, 6), (3, 6, 4), (4,)], 7 * 2 * 3 * 6 * 4),
        (lambda a, o, b: deform_conv2d(a, o, b), [(2, 6, 9, 9), (2, 18, 7, 7), (4, 3, 3, 3)],
         2 * 4 * 49 * 27),
        (lambda theta: functional.affine_grid(theta, [2, 1, 4, 5], align_corners=False), [(2, 2, 3)],
         2 * 20 * 6),
    ],
)  # fmt: skip
def test_products(function: Callable[..., object], shapes: list[tuple[int, ...]], expected: int) -> None:
    assert _count(function, *(_zeros(*shape) for shape in shapes)) == expected


@pytest.mark.parametrize(
    ("queries", "keys", "values", "options"),
    [
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), {}),
        ((2, 3, 7, 8), (2, 3, 7, 8), (2, 3, 7, 8), {"is_causal": True}),
        ((2, 6, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8), {"enable_gqa": True}),
        ((2, 3, 5, 8), (1, 3, 7, 8), (1, 3, 7, 8), {}),
        ((3, 5, 8), (3, 7, 8), (3, 7, 8), {}),
    ],
)
def test_attention_in_every_kernel(
    queries: tuple[int, ...], keys: tuple[int, ...], values: tuple[int, ...], options: dict[str, bool]
) -> None:
    heads = queries[0] * (queries[1] if len(queries) == 4 else 1)
    expected = heads * queries[-2] * keys[-2] * (queries[-1] + values[-1])
    tensors = [_zeros(*shape) for shape in (queries, keys, values)]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]

    assert _count(attend, *tensors) == expected
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert _count(attend, *tensors) == expected


def test_attention_of_a_gpu_s_kernel_by_its_operator() -> None:
    """The one that has values of another width than queries and keys."""
    query, key, value = (torch.empty(2, 3, *shape, device="meta") for shape in ((5, 8), (7, 8), (7, 4)))
    with torch.no_grad(), counted(nn.Identity()) as products:
        torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, False)
    assert products.total == 2 * 3 * 5 * 7 * (8 + 4)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("kind", "gates", "projected"),
    [(nn.LSTM, 4, 0), (nn.LSTM, 4, 3), (nn.GRU, 3, 0), (nn.RNN, 1, 0)],
)
def test_recurrent_layers(
    kind: type[nn.LSTM | nn.GRU | nn.RNN], gates: int, projected: int, layers: int, bidirectional: bool
) -> None:
    options = {"proj_size": projected} if projected else {}
    model = kind(6, 5, num_layers=layers, bidirectional=bidirectional, batch_first=True, **options)
    directions, handed = 1 + bidirectional, projected or 5
    step = sum(
        directions * (gates * 5 * (into + handed) + 5 * projected)
        for into in [6, *[directions * handed] * (layers - 1)]
    )

    def run(x: Tensor) -> object:
        return model.to(x.device)(x)

    for device in ("cpu", "meta"):
        with torch.no_grad(), counted(model) as products:
            run(torch.zeros(2, 7, 6, device=device))
        assert products.total == 2 * 7 * step


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells(cell: type[nn.LSTMCell | nn.GRUCell | nn.RNNCell], gates: int) -> None:
    model = cell(6, 5)
    with torch.no_grad(), counted(model) as products:
        model(torch.zeros(3, 6))
    assert products.total == 3 * gates * 5 * (6 + 5)


@pytest.mark.parametrize("need_weights", [False, True])
def test_multi_head_attention_takes_no_way_that_is_not_counted(need_weights: bool) -> None:
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = torch.zeros(3, 5, 8)
    with torch.no_grad(), counted(model) as products:
        model(x, x, x, need_weights=need_weights)
    assert products.total == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8)
    assert torch.backends.mha.get_fastpath_enabled(), "left as it was"


def test_torchs_fused_encoder_layer_where_somebody_calls_it() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with torch.no_grad(), counted(layer) as products:
        torch.backends.mha.set_fastpath_enabled(True)
        layer(torch.zeros(3, 5, 8))
    assert products.total == 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8 + 2 * 5 * 8 * 16)


def test_what_may_multiply_matrices_and_has_no_formula_is_reported() -> None:
    @torch.library.custom_op("wnexplore_tests::scaled", mutates_args=())
    def scaled(x: Tensor) -> Tensor:
        return 2 * x

    x = torch.eye(4)
    with torch.no_grad(), counted(nn.Identity()) as products:
        torch.fft.fft2(x)
        torch.linalg.inv(x)
        torch.linalg.svd(x)
        scaled(x)
        functional.normalize(x).softmax(1).cumsum(0)
    assert set(products.uncounted) == {
        "_fft_c2c",
        "linalg_inv_ex",
        "_linalg_svd",
        "wnexplore_tests::scaled",
    }
    assert products.total == 0


def test_scripts_and_results_that_nobody_uses_count() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.dead = nn.Linear(4, 5), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            self.dead(x)
            y: Tensor = self.used(x)
            return y @ y.t()

    net = Net()
    for model in (net, torch.jit.trace(net, torch.zeros(2, 4), check_trace=False)):
        with torch.no_grad(), counted(net) as products:
            model(torch.zeros(2, 4))
        dead = 2 * 4 * 6 if model is net else 0
        assert products.total == 2 * 4 * 5 + dead + 2 * 5 * 2
    with torch.no_grad(), counted(net) as products:
        net(torch.zeros(2, 4))
    assert products.flops == {("",): 20, ("", "used"): 40, ("", "dead"): 48}


@given(st.data())
@examples(50)
def test_matrix_products_of_any_batches_count_as_torchs_counter_says(data: st.DataObject) -> None:
    rows, inner, columns = (data.draw(st.integers(1, 5)) for _ in range(3))
    batch = data.draw(st.lists(st.integers(1, 3), max_size=3))

    def side() -> list[int]:
        kept = batch[data.draw(st.integers(0, len(batch))) :]
        return [data.draw(st.sampled_from([1, size])) for size in kept]

    left, right = torch.zeros(*side(), rows, inner), torch.zeros(*side(), inner, columns)
    with FlopCounterMode(display=False) as theirs:
        made = left @ right
    assert 2 * _count(torch.matmul, left, right) == theirs.get_total_flops()
    assert _count(torch.matmul, left, right) == made.numel() * inner
