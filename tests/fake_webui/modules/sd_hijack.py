import ldm.modules.attention
import torch
from modules import devices, shared

CHUNK = 75


class EmbeddingsWithFixes(torch.nn.Module):
    def __init__(self, wrapped, embeddings):
        super().__init__()
        self.wrapped = wrapped
        self.embeddings = embeddings

    def forward(self, input_ids):
        fixes, self.embeddings.fixes = self.embeddings.fixes, None
        embedded = self.wrapped(input_ids)
        return embedded if fixes is None else embedded + sum(fixes)


class TextEncoderWrapper(torch.nn.Module):
    """FrozenCLIPEmbedderWithCustomWords: prompts in chunks of 75 tokens; of the syntax only `(text)` is known."""

    def __init__(self, wrapped, hijack):
        super().__init__()
        self.wrapped, self.hijack = wrapped, hijack
        self.id_start, self.id_end = wrapped.tokenizer.bos_token_id, wrapped.tokenizer.eos_token_id
        self.id_pad = self.id_end
        self.comma_token = wrapped.tokenizer.get_vocab()[",</w>"]

    def tokenize(self, texts):
        return self.wrapped.tokenizer(texts, truncation=False, add_special_tokens=False)["input_ids"]

    def encode_with_transformers(self, tokens):
        skip = shared.opts.CLIP_stop_at_last_layers
        outputs = self.wrapped.transformer(input_ids=tokens, output_hidden_states=True)
        if skip > 1:
            return self.wrapped.transformer.text_model.final_layer_norm(outputs.hidden_states[-skip])
        return outputs.last_hidden_state

    def chunks(self, text):
        chunks, chunk, last_comma = [], [], -1
        for token in self.tokenize([text])[0]:
            if token == self.comma_token:
                last_comma = len(chunk)
            elif len(chunk) == CHUNK and CHUNK - last_comma <= shared.opts.comma_padding_backtrack:
                chunks.append(chunk[: last_comma + 1])
                chunk, last_comma = chunk[last_comma + 1 :], -1
            if len(chunk) == CHUNK:
                chunks.append(chunk)
                chunk, last_comma = [], -1
            chunk.append(token)
        return [*chunks, chunk] if chunk or not chunks else chunks

    def forward(self, texts):
        weighted = [shared.opts.emphasis != "None" and text.startswith("(") and text.endswith(")") for text in texts]
        plain = [text[1:-1] if heavy else text for text, heavy in zip(texts, weighted, strict=True)]
        chunked = [self.chunks(text) for text in plain]
        count = max(map(len, chunked))
        parts = []
        for index in range(count):
            rows = [chunks[index] if index < len(chunks) else [] for chunks in chunked]
            rows = [[self.id_start, *row, *[self.id_end] * (CHUNK + 1 - len(row))] for row in rows]
            parts.append(self.encode_with_transformers(torch.asarray(rows).to(devices.device)))
        factor = torch.tensor([1.1 if heavy else 1.0 for heavy in weighted])
        return torch.hstack(parts) * factor[:, None, None]


class StableDiffusionModelHijack:
    def __init__(self):
        self.fixes, self.circular_enabled, self.layers = None, False, []

    def hijack(self, model):
        embeddings = model.cond_stage_model.transformer.text_model.embeddings
        embeddings.token_embedding = EmbeddingsWithFixes(embeddings.token_embedding, self)
        model.cond_stage_model = TextEncoderWrapper(model.cond_stage_model, self)
        self.layers = list(model.modules())

    def apply_circular(self, enable):
        self.circular_enabled = enable
        for layer in self.layers:
            if type(layer) is torch.nn.Conv2d:
                layer.padding_mode = "circular" if enable else "zeros"

    def clear_comments(self):
        pass


def split_attention(self, x, context=None, mask=None, **_):
    """An attention optimization of the user's choice, as the WebUI puts it on the class."""
    context = x if context is None else context
    query, key, value = (
        part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for part in (self.to_q(x), self.to_k(context), self.to_v(context))
    )
    for network in shared.loaded_hypernetworks:
        value = network(value)
    weights = (query @ key.transpose(-1, -2) * self.scale).softmax(-1)
    return self.to_out((weights @ value).transpose(1, 2).flatten(2))


ldm.modules.attention.CrossAttention.forward = split_attention
model_hijack = StableDiffusionModelHijack()
