import copy

import networkx as nx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import machgraph as mg

D = torch.float64


def randn(*shape):
    return torch.randn(*shape, dtype=D)


class Block(nn.Module):
    """A residual block: two convolutions beside a skip."""

    def __init__(self, channels, out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.skip = nn.Conv2d(channels, out, 1, stride=stride) if stride > 1 else None

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.skip is None else self.skip(x)
        return self.relu(y)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.layer1 = nn.Sequential(Block(4, 4), Block(4, 4))
        self.layer2 = nn.Sequential(Block(4, 6, stride=2))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.stem(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.bottom = nn.Conv2d(4, 4, 3, padding=1)
        self.up2, self.up1 = nn.Conv2d(8, 2, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.head = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        a = torch.tanh(self.down1(x))
        b = torch.tanh(self.down2(F.avg_pool2d(a, 2)))
        c = torch.tanh(self.bottom(F.avg_pool2d(b, 2)))
        d = torch.tanh(self.up2(torch.cat([F.interpolate(c, scale_factor=2.0), b], 1)))
        return self.head(torch.tanh(self.up1(torch.cat([F.interpolate(d, scale_factor=2.0), a], 1))))


class Several(nn.Module):
    """Several inputs, nested, and several outputs, among them an input and a view; one part is called twice."""

    def __init__(self):
        super().__init__()
        self.shared, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x, pair, scale=1.0, *, extra=None):
        left, right = pair
        h = torch.tanh(self.shared(x) + self.other(left))
        a, b = self.shared(h).chunk(2, dim=-1)
        c = right * scale if extra is None else right * scale + extra["e"].mT
        return {"first": (a * b, h.view(-1)), "c": c, "x": x, "n": 3, "none": None}


class InPlace(nn.Module):
    """What has to be made pure, and where no gradient passes."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.register_buffer("shift", randn(4))
        self.register_buffer("average", torch.zeros(4, dtype=D))

    def forward(self, x):
        y = self.lin(x).clone()
        y[:, 0] = x[:, 1] * 2
        y.add_(self.shift).relu_()
        with torch.no_grad():
            m = y.mean(0) + x[0]
            self.average.mul_(0.9).add_(m, alpha=0.1)
        s = torch.tensor([1.0, 2, 3, 4], dtype=x.dtype)
        return (y * s - m) * torch.sigmoid(self.lin(x)).detach()


def modules():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Dropout(), nn.Linear(5, 2)).eval()
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True, activation="gelu").eval()
    lstm = nn.Sequential(nn.LSTM(3, 4, num_layers=2, batch_first=True))
    machine = nn.Sequential(mg.DenseMachine((3, 4, 2)), nn.Linear(9, 2))
    several = randn(2, 4), (randn(2, 4), randn(4, 2))
    return {
        "mlp": (mlp, (randn(4, 3),), {}),
        "resnet": (ResNet().eval(), (randn(2, 3, 8, 8),), {}),
        "resnet in training": (ResNet(), (randn(2, 3, 8, 8),), {}),
        "unet": (UNet(), (randn(2, 1, 8, 8),), {}),
        "transformer": (layer, (randn(2, 5, 8),), {}),
        "several": (Several(), several, {}),
        "several with keywords": (Several(), several, {"extra": {"e": randn(2, 4)}, "scale": 2.0}),
        "in place": (InPlace(), (randn(3, 4),), {}),
        "lstm": (lstm, (randn(2, 5, 3),), {}),
        "a machine inside": (machine, (randn(4, 3),), {}),
    }


CASES = modules()


@pytest.fixture(params=CASES, scope="module")
def case(request):
    """A module, the example, a copy that stays plain torch, and the architecture of the module."""
    module, inputs, kwargs = CASES[request.param]
    module = module.to(D)
    return module, inputs, kwargs, copy.deepcopy(module), mg.from_torch(module, *inputs, kwargs=kwargs)


def value_and_gradients(call, module, inputs, kwargs):
    """All outputs, and the gradients of one weighted sum of them with respect to inputs and parameters."""
    inputs, kwargs = torch.utils._pytree.tree_map_only(torch.Tensor, lambda x: x.requires_grad_(), (inputs, kwargs))
    result = call(*inputs, **kwargs)
    outputs = [y for y in torch.utils._pytree.tree_leaves(result) if isinstance(y, torch.Tensor)]
    total = sum((y * torch.linspace(-1, 1, y.numel(), dtype=D).view(y.shape)).sum() for y in outputs)
    leaves = [x for x in torch.utils._pytree.tree_leaves((inputs, kwargs)) if isinstance(x, torch.Tensor)]
    return result, torch.autograd.grad(total, [*leaves, *module.parameters()], allow_unused=True)


def test_equal_output_and_gradient(case):
    module, inputs, kwargs, twin, f = case
    expected = value_and_gradients(twin, twin, inputs, kwargs)
    got = value_and_gradients(f, module, inputs, kwargs)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    for name, buffer in twin.named_buffers():  # running statistics go on as in the module
        torch.testing.assert_close(module.get_buffer(name), buffer, rtol=0, atol=1e-12)


def test_it_is_an_architecture(case):
    module, inputs, kwargs, _, f = case
    assert isinstance(f, mg.Architecture)
    assert f.depth == len(f.levels) == nx.dag_longest_path_length(f.graph) + 1
    assert f.cofiltration[-1] == frozenset()
    assert set(map(id, f.parameters())) == set(map(id, module.parameters()))
    g = f.point(*inputs, **kwargs)
    *_, last = mg.depth_sequence(f, g)
    torch.testing.assert_close(last, f.resolvent(g), rtol=0, atol=1e-12)


def test_names_and_levels_of_a_residual_network():
    f = mg.from_torch(ResNet().eval(), torch.zeros(1, 3, 8, 8), group="layer1")
    assert f.levels[0] == ["stem"]
    assert f.levels[2:6] == [["layer1"], ["layer2.0.conv1", "layer2.0.skip"], ["layer2.0.bn1"], ["layer2.0.relu"]]
    assert f.levels[-2:] == [["adaptive_avg_pool2d"], ["fc"]]  # flatten belongs to fc
    assert f.outputs == "fc"
    assert set(f.graph.predecessors("layer2.0.add")) == {"layer2.0.skip", "layer2.0.bn2"}


@pytest.mark.parametrize("group", [Block, 2, ("layer1.0", "layer1.1", "layer2.0")])
def test_blocks_of_a_residual_network(group):
    net, x = ResNet().to(D), randn(3, 3, 8, 8)
    twin = copy.deepcopy(net)
    f = mg.from_torch(net, x, group=group)
    assert f.order == ["stem", "relu", "layer1.0", "layer1.1", "layer2.0", "adaptive_avg_pool2d", "fc"]
    assert f.depth == 7
    ax = mg.draw.dependency_graph(f)
    assert {"stem", "layer2.0", "fc"} <= {text.get_text() for text in ax.texts}
    expected, got = value_and_gradients(twin, twin, (x,), {}), value_and_gradients(f, net, (x,), {})
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_the_skips_of_a_unet():
    f = mg.from_torch(UNet(), torch.zeros(1, 1, 8, 8))
    assert set(f.graph.predecessors("cat")) == {"upsample_nearest2d", "tanh_2"}
    assert set(f.graph.predecessors("cat_2")) == {"upsample_nearest2d_2", "tanh"}
    assert f.depth == len(f.order)  # the long way passes through all


def test_the_attention_of_a_transformer():
    f = mg.from_torch(nn.TransformerEncoderLayer(8, 2, batch_first=True).eval(), torch.zeros(2, 5, 8))
    assert f.order == [
        "self_attn.linear",
        "self_attn.scaled_dot_product_attention",
        "self_attn.linear_2",
        "add",
        "norm1",
        "linear1",
        "relu",
        "linear2",
        "add_2",
        "norm2",
    ]
    f = mg.from_torch(nn.TransformerEncoderLayer(8, 2, batch_first=True).eval(), torch.zeros(2, 5, 8), group=1)
    assert f.order == ["self_attn", "add", "norm1", "linear1", "relu", "linear2", "add_2", "norm2"]


def test_independent_machines_share_a_level():
    f = mg.from_torch(Several(), torch.zeros(2, 4), (torch.zeros(2, 4), torch.zeros(4, 2)))
    assert f.levels == [["shared", "other", "mul"], ["add"], ["tanh"], ["shared_2", "view"], ["mul_2"]]
    assert f.inputs == ("x", "pair_0", "pair_1")
    assert f.outputs == {"first": ("mul_2", "view"), "c": "mul", "x": "x", "n": 3, "none": None}


def test_an_if_on_a_shape_is_decided_by_the_example():
    class Chooses(nn.Module):
        def forward(self, x):
            return torch.sin(x) if x.shape[0] > 2 else torch.cos(x)

    few, many = (mg.from_torch(Chooses(), torch.zeros(n, 2)) for n in (2, 3))
    assert (few.order, many.order) == (["cos"], ["sin"])
    with pytest.raises(ValueError, match=r"got x of shape \(3, 2\), and this graph is for \(2, 2\)"):
        few(torch.zeros(3, 2))


def test_a_free_axis():
    net = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2), nn.Unflatten(1, (1, 2)), nn.ReLU()).to(D)
    f = mg.from_torch(net, randn(4, 2, 6), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    assert f.order == ["0", "2", "4"]
    x = randn(9, 2, 6)
    torch.testing.assert_close(f(x), net(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"got input of shape \(9, 3, 6\), and this graph is for \(s\d+, 2, 6\)"):
        f(randn(9, 3, 6))


def test_training_goes_through_the_module_itself():
    net, x = ResNet().to(D), randn(4, 3, 8, 8)
    f = mg.from_torch(net, x)
    g, before = f.point(x), net.get_buffer("layer1.0.bn1.running_mean").clone()
    h = f.resolvent(g)
    assert f.updates["layer1.0.bn1.running_mean"] is net.layer1[0].bn1.running_mean
    torch.testing.assert_close(net.layer1[0].bn1.running_mean, before, rtol=0, atol=0)  # resolvent leaves it alone
    assert (h["layer1.0.bn1.running_mean"] - before).norm() > 0
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    f(x).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close(f(x), net(x), rtol=0, atol=1e-12)


def test_a_deep_copy_is_its_own():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(D)
    f = mg.from_torch(net, randn(3, 2))
    twin, mean = copy.deepcopy(f), net[1].running_mean.clone()
    twin(randn(3, 2))
    assert (net[1].running_mean == mean).all()
    assert next(iter(twin.updates.values())) is not next(iter(f.updates.values()))


class _Notes(nn.Module):
    """It keeps the last mean, and never looks at it."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x):
        self.last.copy_(x.detach().mean(0))
        return self.norm(x)


def test_statistics_go_on_after_a_conversion():
    f = mg.from_torch(_Notes(), torch.zeros(3, 2))
    f.double()
    net, x = _Notes().double(), randn(3, 2)
    for _ in range(2):
        torch.testing.assert_close(f(x), net(x), rtol=0, atol=1e-12)
    buffers = dict(net.named_buffers())
    assert set(f.updates) == set(buffers)
    for name, buffer in f.updates.items():
        torch.testing.assert_close(buffer, buffers[name], rtol=0, atol=1e-12)
    held = {id(buffer) for buffer in f.buffers()}
    assert all(id(buffer) in held for buffer in f.updates.values())


class _Writes(nn.Module):
    def forward(self, x):
        x.mul_(2)
        return x + 1


class _Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class _Unseen(nn.Module):
    def forward(self, x):
        y = x * 2
        with torch.no_grad():
            y.view(-1)[0] = 0
        return y + 1


class _Nothing(nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda: mg.from_torch(torch.sin, torch.zeros(2)), "got builtin_function_or_method: give an nn.Module"),
        (lambda: mg.from_torch(_Writes(), torch.zeros(2)), "_Writes changes its input x in place"),
        (lambda: mg.from_torch(_Unseen(), torch.zeros(2)), "mul is changed in place under no_grad and used again"),
        (lambda: mg.from_torch(_Branches(), torch.zeros(2)), "torch.export does not accept _Branches"),
        (lambda: mg.from_torch(_Nothing(), torch.zeros(2)), "_Nothing computes nothing"),
        (
            lambda: mg.from_torch(nn.Sequential(nn.ReLU()), torch.zeros(2), group="1"),
            "'1': Sequential has no such module",
        ),
        (
            lambda: mg.from_torch(nn.Sequential(nn.ReLU()), torch.zeros(2), group=nn.Tanh),
            "Tanh: Sequential has no such",
        ),
        (lambda: mg.from_torch(nn.Sequential(nn.ReLU()), torch.zeros(2), group=0), "group=0"),
        (
            lambda: mg.from_torch(Several(), torch.zeros(2, 4), (torch.zeros(2, 4), torch.zeros(2)))(torch.zeros(2, 4)),
            r"give \(x, \(pair_0, pair_1\)\)",
        ),
        (lambda: mg.from_torch(nn.ReLU(), torch.zeros(2))(3.0), "got float for input: give a tensor"),
    ],
)
def test_what_is_refused(act, sentence):
    with pytest.raises(ValueError, match=sentence):
        act()


def test_a_constant_argument_is_part_of_the_graph():
    inputs = torch.zeros(2, 4), (torch.zeros(2, 4), torch.zeros(2)), 2.0
    f = mg.from_torch(Several(), *inputs)
    with pytest.raises(ValueError, match=r"got an argument 3.0 where the example had 2.0"):
        f(*inputs[:2], 3.0)


# ---- the same by hand: graphs of arbitrary modules -----------------------------------------------------------------


def close(f, module, x, output, inputs="x"):
    expected = value_and_gradients(module, module, (x,), {})
    got = value_and_gradients(lambda x: f.resolvent({inputs: x})[output], module, (x,), {})
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_a_unet_as_a_sum_of_machines():
    """The skips need no concatenation: a convolution of several inputs is a sum of convolutions, one write each."""
    net = UNet().to(D)

    def down(conv):
        return lambda x: conv(F.avg_pool2d(x, 2))

    def part(conv, channels, up=False, bias=False):
        def function(x):
            x = F.interpolate(torch.tanh(x), scale_factor=2.0) if up else torch.tanh(x)
            return F.conv2d(x, conv.weight[:, channels], conv.bias if bias else None, padding=1)

        return function

    f = sum(
        [
            mg.Machine(net.down1, ("x",), ("a",), "down1"),
            mg.Machine(lambda a: down(net.down2)(torch.tanh(a)), ("a",), ("b",), "down2"),
            mg.Machine(lambda b: down(net.bottom)(torch.tanh(b)), ("b",), ("c",), "bottom"),
            mg.Machine(part(net.up2, slice(0, 4), up=True, bias=True), ("c",), ("d",), "up2"),
            mg.Machine(part(net.up2, slice(4, 8)), ("b",), ("d",), "skip2"),
            mg.Machine(part(net.up1, slice(0, 2), up=True, bias=True), ("d",), ("e",), "up1"),
            mg.Machine(part(net.up1, slice(2, 4)), ("a",), ("e",), "skip1"),
            mg.Machine(lambda e: net.head(torch.tanh(e)), ("e",), ("y",), "head"),
        ]
    )
    assert f.levels == [["down1"], ["down2", "skip1"], ["bottom", "skip2"], ["up2"], ["up1"], ["head"]]
    close(f, net, randn(2, 1, 8, 8), "y")


def test_a_transformer_encoder_layer_as_a_sum_of_machines():
    """The residual branches add to what the skip has written: ``h = g + f h`` itself."""
    layer = nn.TransformerEncoderLayer(8, 2, dim_feedforward=12, batch_first=True, norm_first=True).eval().to(D)

    def attention(x):
        x = layer.norm1(x)
        return layer.self_attn(x, x, x, need_weights=False)[0]

    def skip(x):
        return x

    f = (
        mg.Machine(attention, ("x",), ("h",), "attention")
        + mg.Machine(skip, ("x",), ("h",), "skip")
        + mg.Machine(lambda h: layer.linear2(F.relu(layer.linear1(layer.norm2(h)))), ("h",), ("y",), "feedforward")
        + mg.Machine(skip, ("h",), ("y",), "skip2")
    )
    assert f.levels == [["attention", "skip"], ["feedforward", "skip2"]]
    close(f, layer, randn(2, 5, 8), "y")
