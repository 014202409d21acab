/* A class for transformers beside the weights of a fold that it has none for; and the class of a configuration for vLLM. */
#include <string.h>

#include "formats/hf.h"
#include "model/arch.h"

static const char *const lines[] = {
	"\"\"\"Written by quire beside a folded model: layers with counts of KV heads of their own (kv_heads_per_layer, block_configs), and",
	"layers that read the keys and values of an earlier one (kv_source_layers) and keep none.\"\"\"",
	"from torch import nn",
	"from transformers import (LlamaConfig, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)",
	"from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS",
	"from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward",
	"",
	"",
	"class FoldedAttention(nn.Module):",
	"    def __init__(self, was, config, layer, heads, source, states):",
	"        super().__init__()",
	"        self.config, self.layer_idx, self.source, self.states = config, layer, source, states",
	"        self.head_dim, self.scaling, self.is_causal = was.head_dim, was.scaling, True",
	"        self.attention_dropout, self.sliding_window = was.attention_dropout, getattr(was, \"sliding_window\", None)",
	"        self.num_key_value_groups = config.num_attention_heads // heads",
	"        self.q_proj, self.o_proj = was.q_proj, was.o_proj",
	"        self.q_norm = getattr(was, \"q_norm\", None)",
	"        if source == layer:",
	"            width, bias = was.k_proj.in_features, was.k_proj.bias is not None",
	"            self.k_proj = nn.Linear(width, heads * self.head_dim, bias=bias)",
	"            self.v_proj = nn.Linear(width, heads * self.head_dim, bias=bias)",
	"            self.k_norm = getattr(was, \"k_norm\", None)",
	"",
	"    def forward(self, hidden_states, position_embeddings, attention_mask=None, **kwargs):",
	"        caches = [kwargs.pop(name, None) for name in (\"cache\", \"past_key_values\")]",
	"        cache = caches[1] if caches[0] is None else caches[0]",
	"        shape = (*hidden_states.shape[:-1], -1, self.head_dim)",
	"        cos, sin = position_embeddings",
	"        query = self.q_proj(hidden_states).view(shape)",
	"        query = (self.q_norm(query) if self.q_norm is not None else query).transpose(1, 2)",
	"        if self.source == self.layer_idx:",
	"            key = self.k_proj(hidden_states).view(shape)",
	"            key = (self.k_norm(key) if self.k_norm is not None else key).transpose(1, 2)",
	"            value = self.v_proj(hidden_states).view(shape).transpose(1, 2)",
	"            query, key = apply_rotary_pos_emb(query, key, cos, sin)",
	"            if cache is not None:",
	"                key, value = cache.update(key, value, self.layer_idx)",
	"            self.states[self.layer_idx] = key, value",
	"        else:",
	"            query, _ = apply_rotary_pos_emb(query, query, cos, sin)",
	"            key, value = self.states[self.source]",
	"        kind = self.config._attn_implementation",
	"        attend = eager_attention_forward if kind == \"eager\" else ALL_ATTENTION_FUNCTIONS[kind]",
	"        out, weights = attend(self, query, key, value, attention_mask, scaling=self.scaling, sliding_window=self.sliding_window,",
	"                              dropout=self.attention_dropout if self.training else 0.0, **kwargs)",
	"        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights",
	"",
	"",
	"def folded(base):",
	"    class Folded(base):",
	"        def __init__(self, config, *args, **kwargs):",
	"            super().__init__(config, *args, **kwargs)",
	"            layers, states = self.model.layers, {}",
	"            heads = getattr(config, \"kv_heads_per_layer\", None) or [config.num_key_value_heads] * len(layers)",
	"            source = getattr(config, \"kv_source_layers\", None) or list(range(len(layers)))",
	"            for i, layer in enumerate(layers):",
	"                layer.self_attn = FoldedAttention(layer.self_attn, config, i, heads[i], source[i], states)",
	"",
	"    Folded.__name__ = Folded.__qualname__ = \"Folded\" + base.__name__",
	"    return Folded",
	"",
	"",
	"FoldedLlamaForCausalLM = folded(LlamaForCausalLM)",
	"FoldedMistralForCausalLM = folded(MistralForCausalLM)",
	"FoldedQwen2ForCausalLM = folded(Qwen2ForCausalLM)",
	"FoldedQwen3ForCausalLM = folded(Qwen3ForCausalLM)",
	"",
	"",
	"class Block(dict):",
	"    \"\"\"A member of block_configs, with its members as attributes too.\"\"\"",
	"",
	"    def __getattr__(self, name):",
	"        try:",
	"            return self[name]",
	"        except KeyError:",
	"            raise AttributeError(name) from None",
	"",
	"",
	"class FoldedConfig(LlamaConfig):",
	"    model_type = \"nemotron-nas\"",
	"",
	"    def __init__(self, block_configs=None, **kwargs):",
	"        super().__init__(**kwargs)",
	"        self.block_configs = [Block({k: Block(v) for k, v in b.items()}) for b in block_configs or []]",
	"        self.kv_heads_per_layer = [self.num_attention_heads // b.attention.n_heads_in_group for b in self.block_configs] or None",
	"",
	"",
	"FoldedDeciLMForCausalLM = folded(LlamaForCausalLM)",
	"FoldedDeciLMForCausalLM.config_class = FoldedConfig",
};

int hf_code_text(struct strbuf *out, struct err *e)
{
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		strbuf_printf(out, "%s\n", lines[i]);
	return out->failed ? err_nomem(e) : ERR_OK;
}

int hf_code_config(const struct config *config, struct strbuf *text, struct err *e)
{
	size_t end = text->len;
	while (end && text->data[end - 1] != '}')
		end--;
	if (!end)
		return err_set(e, ERR_INPUT, "config.json is not an object");
	end--;
	while (end && strchr(" \t\r\n", text->data[end - 1]))
		end--;
	text->len = end;
	strbuf_puts(text, ",\n  \"auto_map\": {");
	/* transformers knows the configuration of the others */
	if (config->arch->differ == DIFFER_BLOCKS)
		strbuf_puts(text, "\"AutoConfig\": \"modeling_quire.FoldedConfig\", ");
	strbuf_printf(text, "\"AutoModelForCausalLM\": \"modeling_quire.Folded%s\"}\n}\n", config->arch->hf_class);
	return text->failed ? err_nomem(e) : ERR_OK;
}
