"""Transformers and other attention models, each in the way that one kind of exporter writes them."""

import numpy as np
from net import Net, model
from onnx import TensorProto

IMAGE = ["batch", 3, 16, 16]
CLASSES = ["batch", 10]
IDS = ["batch", "sequence"]
LOWEST = float(np.finfo(np.float32).min)


def gelu(n: Net, x: str) -> str:
    """GELU before it was an operator."""
    x = n.Mul(x, n.Add(n.Erf(n.Div(x, float(np.sqrt(2)))), 1.0))
    return n.Mul(x, 0.5)


def feed_forward(n: Net, x: str, width: int, hidden: int) -> str:
    with n.scope("mlp"):
        return n.linear(gelu(n, n.linear(x, width, hidden)), hidden, width)


def attend(n: Net, q: str, k: str, v: str, head: int, mask: str | None = None) -> str:
    """Softmax(q k^T / sqrt(head)) v on [batch, heads, sequence, head]."""
    scores = n.Div(n.MatMul(q, n.Transpose(k, perm=[0, 1, 3, 2])), float(np.sqrt(head)))
    return n.MatMul(n.Softmax(n.Add(scores, mask) if mask else scores, axis=-1), v)


@model(opset=17)
def vit(n: Net):
    """ViT: class token, position embedding, packed QKV taken apart by Reshape [3, heads, d] and Gather."""
    width, heads, head = 18, 3, 6
    patches = n.conv(n.input("image", IMAGE), 3, width, 4, stride=4, pad=0)
    x = n.Transpose(n.view(patches, n.size(patches, 0), width, 16), perm=[0, 2, 1])
    # expand(batch, -1, -1), as TorchScript exports it: -1 is replaced by 1, which broadcasts
    wanted = n.Concat(n.unsqueeze(n.size(x, 0), 0), [-1], [-1], axis=0)
    ones = n.ConstantOfShape([3], value=np.ones(1, np.int64))
    shape = n.Where(n.Equal(wanted, n.Mul(ones, [-1])), ones, wanted)
    x = n.Concat(n.Expand(n.vector(1, 1, width, name="cls_token"), shape), x, axis=1)
    x = n.Add(x, n.vector(1, 17, width, name="pos_embed"))
    for _ in range(2):
        with n.scope("block"):
            y = n.linear(n.layer_norm(x, width), width, 3 * width)
            y = n.view(y, n.size(x, 0), n.size(x, 1), 3, heads, head)
            y = n.Transpose(y, perm=[2, 0, 3, 1, 4])
            q, k, v = (n.Gather(y, np.array(i), axis=0) for i in range(3))
            scores = n.MatMul(n.Mul(q, head**-0.5), n.Transpose(k, perm=[0, 1, 3, 2]))
            y = n.Transpose(n.MatMul(n.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
            x = n.Add(x, n.linear(n.view(y, n.size(x, 0), n.size(x, 1), width), width, width))
            x = n.Add(x, feed_forward(n, n.layer_norm(x, width), width, 2 * width))
    x = n.Gather(n.layer_norm(x, width), np.array(0), axis=1)
    n.output("logits", n.gemm(x, width, 10), CLASSES)


@model(opset=14)
def bert(n: Net):
    """BERT: separate QKV, LayerNorm and GELU decomposed, shapes computed in the graph, mask."""
    width, heads, head, vocabulary = 18, 3, 6, 48
    names = ("input_ids", "attention_mask", "token_type_ids")
    ids, mask, kinds = (n.input(name, IDS, TensorProto.INT64) for name in names)

    def norm(x):
        with n.scope("LayerNorm"):
            centred = n.Sub(x, n.mean(x, -1))
            variance = n.mean(n.Pow(centred, 2.0), -1)
            x = n.Div(centred, n.Sqrt(n.Add(variance, 1e-5)))
            return n.Add(n.Mul(x, n.vector(width, mean=1, name="weight")), n.vector(width))

    def attention(x, bias):
        def heads_of(y):
            return n.Transpose(n.view(y, n.size(y, 0), n.size(y, 1), heads, head), perm=[0, 2, 1, 3])

        q, k, v = (heads_of(n.linear(x, width, width)) for _ in range(3))
        y = n.Transpose(attend(n, q, k, v, head, bias), perm=[0, 2, 1, 3])
        return n.linear(n.view(y, n.size(y, 0), n.size(y, 1), width), width, width)

    positions = n.tensor("position_ids", np.arange(16)[None])
    positions = n.Slice(positions, [0], n.unsqueeze(n.size(ids, 1), 0), [1], [1])
    x = n.Gather(n.matrix(vocabulary, width, fan=2, name="word_embeddings"), ids)
    x = n.Add(x, n.Gather(n.matrix(2, width, fan=2, name="token_type_embeddings"), kinds))
    x = norm(n.Add(x, n.Gather(n.matrix(16, width, fan=2, name="position_embeddings"), positions)))
    bias = n.Mul(n.Sub(1.0, n.Cast(n.unsqueeze(mask, 1, 2), to=TensorProto.FLOAT)), LOWEST)
    for _ in range(2):
        with n.scope("layer"):
            x = norm(n.Add(attention(x, bias), x))
            x = norm(n.Add(feed_forward(n, x, width, 2 * width), x))
    pooled = n.Tanh(n.gemm(n.Gather(x, np.array(0), axis=1), width, width))
    n.output("logits", n.gemm(pooled, width, 3), ["batch", 3])


@model(opset=13)
def gpt2(n: Net):
    """GPT-2: packed QKV by Split, Gemm between Reshapes, causal mask by Range and Where, tied embedding."""
    width, heads, head, vocabulary = 18, 3, 6, 48

    def linear(x, cin, cout):  # what Hugging Face calls Conv1D
        flat = n.gemm(n.Reshape(x, [-1, cin]), cin, cout, trans=False)
        return n.view(flat, n.size(x, 0), n.size(x, 1), cout)

    def heads_of(y):
        return n.Transpose(n.view(y, n.size(y, 0), n.size(y, 1), heads, head), perm=[0, 2, 1, 3])

    def norm(x):
        with n.scope("ln"):
            centred = n.Sub(x, n.mean(x, -1))
            x = n.Div(centred, n.Sqrt(n.Add(n.mean(n.Mul(centred, centred), -1), 1e-5)))
            return n.Add(n.Mul(x, n.vector(width, mean=1, name="weight")), n.vector(width))

    ids = n.input("input_ids", IDS, TensorProto.INT64)
    embedding = n.matrix(vocabulary, width, fan=width, name="wte")
    steps = n.Range(np.array(0), n.size(ids, 1), np.array(1))
    causal = n.LessOrEqual(n.unsqueeze(steps, 0), n.unsqueeze(steps, 1))
    places = n.Gather(n.matrix(16, width, fan=8, name="wpe"), n.unsqueeze(steps, 0))
    x = n.Add(n.Gather(embedding, ids), places)
    for _ in range(2):
        with n.scope("h"):
            q, k, v = map(heads_of, n.split(linear(norm(x), width, 3 * width), [width] * 3, axis=2))
            scores = n.Div(n.MatMul(q, n.Transpose(k, perm=[0, 1, 3, 2])), float(np.sqrt(head)))
            weights = n.Softmax(n.Where(causal, scores, LOWEST), axis=-1)
            y = n.Transpose(n.MatMul(weights, v), perm=[0, 2, 1, 3])
            x = n.Add(x, linear(n.view(y, n.size(y, 0), n.size(y, 1), width), width, width))
            y = linear(norm(x), width, 2 * width)
            cubic = n.Add(y, n.Mul(n.Pow(y, 3.0), 0.044715))
            y = n.Mul(n.Mul(y, 0.5), n.Add(n.Tanh(n.Mul(cubic, float(np.sqrt(2 / np.pi)))), 1.0))
            x = n.Add(x, linear(y, 2 * width, width))
    n.output("logits", n.MatMul(norm(x), n.Transpose(embedding, perm=[1, 0])), [*IDS, vocabulary])


@model(opset=18)
def decoder(n: Net):
    """GPT-like decoder with caches: past keys and values come in, present ones go out; tied embedding."""
    width, heads, head, hidden, vocabulary, longest = 20, 4, 5, 40, 100, 48
    ids, positions = (n.input(name, IDS, TensorProto.INT64) for name in ("input_ids", "position_ids"))
    cache = ["batch", heads, "past", head]
    table = n.matrix(vocabulary, width, fan=2, name="embed_tokens.weight")
    x = n.Add(n.Gather(table, ids), n.Gather(n.matrix(longest, width, fan=20, name="position.weight"), positions))
    batch, length = n.size(ids, 0), n.size(ids, 1)
    mask = None
    for layer in range(2):
        with n.scope("layers"):
            y, pasts = n.layer_norm(x, width), []
            q, k, v = (n.view(n.linear(y, width, heads * head), batch, length, heads, head) for _ in range(3))
            q, k, v = (n.Transpose(each, perm=[0, 2, 1, 3]) for each in (q, k, v))
            for kind, new in (("key", k), ("value", v)):
                past = n.input(f"past_key_values.{layer}.{kind}", cache)
                pasts.append(n.Concat(past, new, axis=2))
            if mask is None:
                before = n.size(f"past_key_values.{layer}.key", 2)
                total = n.Add(before, length)
                queries, keys = n.Range(before, total, np.array(1)), n.Range(np.array(0), total, np.array(1))
                mask = n.Where(n.LessOrEqual(n.unsqueeze(keys, 0), n.unsqueeze(queries, 1)), 0.0, LOWEST)
            y = attend(n, q, *pasts, head, mask)
            y = n.view(n.Transpose(y, perm=[0, 2, 1, 3]), batch, length, heads * head)
            x = n.Add(x, n.linear(y, heads * head, width))
            x = n.Add(x, feed_forward(n, n.layer_norm(x, width), width, hidden))
            for kind, present in zip(("key", "value"), pasts, strict=True):
                n.output(f"present.{layer}.{kind}", present, ["batch", heads, "total", head])
    n.output("logits", n.MatMul(n.layer_norm(x, width), n.Transpose(table, perm=[1, 0])), [*IDS, vocabulary])


def rotary_tables(head: int, length: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine per position and pair of channels, [length, head / 2]."""
    angles = np.outer(np.arange(length), 100.0 ** (-np.arange(0, head, 2) / head))
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


@model(opset=18, constants="initializer")
def llama(n: Net):
    """LLaMA: RMSNorm decomposed, grouped-query attention by Expand, rotary embedding by halves, SwiGLU."""
    width, heads, kv_heads, head, hidden, vocabulary = 20, 4, 2, 8, 32, 40
    ids = n.input("input_ids", IDS, TensorProto.INT64)
    batch, length = n.size(ids, 0), n.size(ids, 1)
    steps = n.Range(np.array(0), length, np.array(1))
    causal = n.Where(n.LessOrEqual(n.unsqueeze(steps, 0), n.unsqueeze(steps, 1)), 0.0, LOWEST)
    sizes = n.unsqueeze(batch, 0), n.unsqueeze(length, 0)
    copies = n.Concat(sizes[0], [kv_heads, heads // kv_heads], sizes[1], [head], axis=0)
    merged = n.Concat(sizes[0], [heads], sizes[1], [head], axis=0)
    tables = [np.concatenate([table, table], axis=1) for table in rotary_tables(head)]
    cos, sin = (n.unsqueeze(n.Gather(table, steps), 0, 1) for table in tables)

    def norm(x):
        with n.scope("norm"):
            scale = n.Reciprocal(n.Sqrt(n.Add(n.mean(n.Pow(x, 2.0), -1), 1e-6)))
            return n.Mul(n.vector(width, mean=1, name="weight"), n.Mul(x, scale))

    def project(x, count):
        y = n.linear(x, width, count * head, bias=False)
        return n.Transpose(n.view(y, batch, length, -1, head), perm=[0, 2, 1, 3])

    def rotate(x):
        low, high = n.Slice(x, [0], [4], [3], [1]), n.Slice(x, [4], [2**63 - 1], [3], [1])
        return n.Add(n.Mul(x, cos), n.Mul(n.Concat(n.Neg(high), low, axis=-1), sin))

    def repeat(x):
        return n.Reshape(n.Expand(n.unsqueeze(x, 2), copies), merged)

    x = n.Gather(n.matrix(vocabulary, width, fan=2, name="embed_tokens"), ids)
    for _ in range(2):
        with n.scope("layers"):
            y = norm(x)
            q, k, v = project(y, heads), project(y, kv_heads), project(y, kv_heads)
            y = attend(n, rotate(q), repeat(rotate(k)), repeat(v), head, causal)
            y = n.view(n.Transpose(y, perm=[0, 2, 1, 3]), batch, length, -1)
            x = n.Add(x, n.linear(y, heads * head, width, bias=False))
            y = norm(x)
            gate, up = (n.linear(y, width, hidden, bias=False) for _ in range(2))
            y = n.Mul(n.Mul(gate, n.Sigmoid(gate)), up)
            x = n.Add(x, n.linear(y, hidden, width, bias=False))
    n.output("logits", n.linear(norm(x), width, vocabulary, bias=False), [*IDS, vocabulary])


@model(opset=23, constants="initializer")
def llama_23(n: Net):
    """LLaMA: RMSNormalization, RotaryEmbedding and grouped-query Attention as operators."""
    width, heads, kv_heads, head, hidden, vocabulary = 20, 4, 2, 8, 32, 40
    ids = n.input("input_ids", IDS, TensorProto.INT64)
    positions = n.input("position_ids", IDS, TensorProto.INT64)

    def norm(x):
        with n.scope("norm"):
            return n.RMSNormalization(x, n.vector(width, mean=1, name="weight"), axis=-1)

    def project(x, count):
        y = n.Reshape(n.linear(x, width, count * head, bias=False), [0, 0, count, head])
        return n.Transpose(y, perm=[0, 2, 1, 3])

    tables = rotary_tables(head)
    x = n.Gather(n.matrix(vocabulary, width, fan=2, name="embed_tokens"), ids)
    for _ in range(2):
        with n.scope("layers"):
            y = norm(x)
            q, k, v = project(y, heads), project(y, kv_heads), project(y, kv_heads)
            q, k = (n.RotaryEmbedding(part, *tables, positions) for part in (q, k))
            y = n.Transpose(n.Attention(q, k, v, is_causal=1), perm=[0, 2, 1, 3])
            x = n.Add(x, n.linear(n.Reshape(y, [0, 0, heads * head]), heads * head, width, bias=False))
            y = norm(x)
            gate, up = n.split(n.linear(y, width, 2 * hidden, bias=False), [hidden, hidden], axis=2)
            x = n.Add(x, n.linear(n.Mul(n.Mul(gate, n.Sigmoid(gate)), up), hidden, width, bias=False))
    n.output("logits", n.linear(norm(x), width, vocabulary, bias=False), [*IDS, vocabulary])


def relative_positions(window: int) -> np.ndarray:
    """Row of the bias table for each pair of positions in a window, flat."""
    grid = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    rows, columns = grid[:, :, None] - grid[:, None, :] + window - 1
    return (rows * (2 * window - 1) + columns).ravel()


def shift_mask(side: int, window: int, shift: int) -> np.ndarray:
    """-100 where two positions of a shifted window are not neighbours in the image, [windows, area, area]."""
    band = np.digitize(np.arange(side), [side - window, side - shift])
    region = band[:, None] * 3 + band
    count = side // window
    region = region.reshape(count, window, count, window).swapaxes(1, 2).reshape(count**2, window**2)
    return np.where(region[:, :, None] == region[:, None, :], 0, -100).astype(np.float32)


@model(opset=17)
def swin(n: Net):
    """Swin: windows by Reshape and Transpose, cyclic shift by Slice and Concat, bias table, patch merging."""
    heads, head, window = 2, 8, 2
    area = window**2

    def roll(x, shift):
        for axis in (1, 2):
            first = n.Slice(x, [shift], [2**63 - 1], [axis], [1])
            x = n.Concat(first, n.Slice(x, [0], [shift], [axis], [1]), axis=axis)
        return x

    def block(x, side, width, shift):
        count = side // window
        y = n.layer_norm(x, width)
        y = n.Reshape(roll(y, shift) if shift else y, [-1, count, window, count, window, width])
        y = n.Reshape(n.Transpose(y, perm=[0, 1, 3, 2, 4, 5]), [-1, area, width])
        packed = n.Reshape(n.linear(y, width, 3 * heads * head), [-1, area, 3, heads, head])
        parts = n.split(n.Transpose(packed, perm=[2, 0, 3, 1, 4]), [1, 1, 1], axis=0)
        q, k, v = (n.squeeze(part, 0) for part in parts)
        table = n.vector((2 * window - 1) ** 2, heads, name="relative_position_bias_table")
        bias = n.Reshape(n.Gather(table, relative_positions(window)), [area, area, heads])
        scores = n.MatMul(n.Mul(q, head**-0.5), n.Transpose(k, perm=[0, 1, 3, 2]))
        scores = n.Add(scores, n.unsqueeze(n.Transpose(bias, perm=[2, 0, 1]), 0))
        if shift:
            scores = n.Reshape(scores, [-1, count**2, heads, area, area])
            scores = n.Add(scores, shift_mask(side, window, shift)[None, :, None])
            scores = n.Reshape(scores, [-1, heads, area, area])
        y = n.Transpose(n.MatMul(n.Softmax(scores, axis=-1), v), perm=[0, 2, 1, 3])
        y = n.linear(n.Reshape(y, [-1, area, heads * head]), heads * head, width)
        y = n.Transpose(n.Reshape(y, [-1, count, count, window, window, width]), perm=[0, 1, 3, 2, 4, 5])
        y = n.Reshape(y, [-1, side, side, width])
        x = n.Add(x, roll(y, -shift) if shift else y)
        return n.Add(x, feed_forward(n, n.layer_norm(x, width), width, 2 * width))

    x = n.conv(n.input("image", IMAGE), 3, 12, 2, stride=2, pad=0)
    x = n.layer_norm(n.Transpose(x, perm=[0, 2, 3, 1]), 12)
    for shift in (0, 1):
        with n.scope("stage1"):
            x = block(x, 8, 12, shift)
    with n.scope("merging"):
        corners = [n.Slice(x, [i, j], [8, 8], [1, 2], [2, 2]) for j in (0, 1) for i in (0, 1)]
        x = n.linear(n.layer_norm(n.Concat(*corners, axis=-1), 48), 48, 20, bias=False)
    with n.scope("stage2"):
        x = block(x, 4, 20, 0)
    n.output("logits", n.gemm(n.mean(n.layer_norm(x, 20), 1, 2, keepdims=0), 20, 10), CLASSES)


@model(opset=20, constants="initializer")
def encoder_decoder(n: Net):
    """Whisper-like: 1-D Conv stem, cross-attention to keys of another width, Gelu operator."""
    heads, head = 3, 8
    inner = heads * head

    def attention(x, source, width, source_width, mask=None):
        def project(y, cin):
            y = n.Reshape(n.linear(y, cin, inner), [0, -1, heads, head])
            return n.Transpose(y, perm=[0, 2, 1, 3])

        with n.scope("attention"):
            q, k, v = project(x, width), project(source, source_width), project(source, source_width)
            y = n.Transpose(attend(n, q, k, v, head, mask), perm=[0, 2, 1, 3])
            return n.linear(n.Reshape(y, [0, -1, inner]), inner, width)

    def feed(x, width):
        with n.scope("mlp"):
            return n.linear(n.Gelu(n.linear(x, width, 2 * width)), 2 * width, width)

    with n.scope("encoder"):
        frames = n.input("frames", ["batch", 6, 16])
        y = n.Gelu(n.conv(n.Gelu(n.conv(frames, 6, 16, dims=1)), 16, 16, dims=1, stride=2))
        y = n.Add(n.Transpose(y, perm=[0, 2, 1]), n.vector(8, 16, name="positions"))
        y = n.Add(y, attention(z := n.layer_norm(y, 16), z, 16, 16))
        y = n.layer_norm(n.Add(y, feed(n.layer_norm(y, 16), 16)), 16)
    with n.scope("decoder"):
        ids = n.input("decoder_input_ids", IDS, TensorProto.INT64)
        table = n.matrix(40, 20, fan=20, name="embedding")
        square = n.Concat(*[n.Shape(ids, start=1)] * 2, axis=0)
        causal = n.Trilu(n.Expand(-100.0, square), np.array(1), upper=1)
        x = n.Gather(table, ids)
        x = n.Add(x, attention(z := n.layer_norm(x, 20), z, 20, 20, causal))
        x = n.Add(x, attention(n.layer_norm(x, 20), y, 20, 16))
        x = n.layer_norm(n.Add(x, feed(n.layer_norm(x, 20), 20)), 20)
    n.output("logits", n.linear(x, 20, 40, bias=False), [*IDS, 40])


@model(opset=19)
def mixer(n: Net):
    """MLP-Mixer: MatMul over tokens between Transposes, MatMul over channels, a weight on either axis."""
    width, tokens = 24, 16
    x = n.conv(n.input("image", IMAGE), 3, width, 4, stride=4, pad=0)
    x = n.Transpose(n.Reshape(x, [0, width, tokens]), perm=[0, 2, 1])
    for _ in range(2):
        with n.scope("block"):
            y = n.Transpose(n.layer_norm(x, width), perm=[0, 2, 1])
            x = n.Add(x, n.Transpose(feed_forward(n, y, tokens, 20), perm=[0, 2, 1]))
            x = n.Add(x, feed_forward(n, n.layer_norm(x, width), width, 2 * width))
    with n.scope("left"):  # the weight as the left operand, which mixes the tokens too
        x = n.MatMul(n.matrix(8, tokens, name="pool"), x)
    n.output("logits", n.gemm(n.mean(n.layer_norm(x, width), 1, keepdims=0), width, 10), CLASSES)


@model(opset=12, constants="initializer")
def einsum(n: Net):
    """Keras / JAX attention: projections by Einsum on [width, heads, d] weights, scores by Einsum."""
    width, heads, head, hidden = 24, 3, 8, 40

    def project(x, name):
        weight = n.matrix(width, heads, head, fan=4 * width, name=name)
        bias = n.vector(heads, head, name=f"{name}_bias")
        return n.Add(n.Einsum(x, weight, equation="bsd,dhk->bshk"), bias)

    x = n.linear(n.input("tokens", ["batch", "sequence", 12]), 12, width)
    for _ in range(2):
        with n.scope("attention"):
            q, k, v = (project(x, name) for name in ("query", "key", "value"))
            scores = n.Einsum(n.Mul(q, head**-0.5), k, equation="bqhk,bshk->bhqs")
            y = n.Einsum(n.Softmax(scores, axis=3), v, equation="bhqs,bshk->bqhk")
            out = n.matrix(heads, head, width, fan=4 * width, name="output")
            x = n.Add(n.Einsum(y, out, equation="bqhk,hkd->bqd"), x)
        with n.scope("dense"):
            up = n.matrix(width, hidden, fan=2 * width, name="up")
            down = n.matrix(hidden, width, fan=2 * hidden, name="down")
            y = n.Relu(n.Einsum(x, up, equation="...d,df->...f"))
            x = n.Add(x, n.Einsum(down, y, equation="fd,bsf->bsd"))
    n.output("scores", n.linear(x, width, 4), ["batch", "sequence", 4])
