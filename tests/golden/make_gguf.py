"""Writes gguf/types.gguf with the reference package (gguf, numpy): every value type, several tensor types. Run in tests/golden."""
import gguf
import numpy as np
from gguf import GGMLQuantizationType as T, GGUFValueType as V

w = gguf.GGUFWriter("gguf/types.gguf", "golden")
w.add_custom_alignment(64)
w.add_uint8("t.u8", 200)
w.add_int8("t.i8", -100)
w.add_uint16("t.u16", 60000)
w.add_int16("t.i16", -30000)
w.add_uint32("t.u32", 4000000000)
w.add_int32("t.i32", -2000000000)
w.add_float32("t.f32", 0.15625)
w.add_bool("t.yes", True)
w.add_bool("t.no", False)
w.add_string("t.string", "gr\u00fc\u00dfe")
w.add_uint64("t.u64", 18000000000000000000)
w.add_int64("t.i64", -9000000000000000000)
w.add_float64("t.f64", 1e300)
w.add_array("t.strings", ["a", "", "bcd"])
w.add_array("t.ints", [1, -2, 3])
w.add_array("t.floats", [0.5, -0.25])
w.add_array("t.bools", [True, False, True])
ramp = np.arange(64, dtype=np.float32) - 32
w.add_tensor("f32", ramp.reshape(2, 4, 8))
w.add_tensor("f16", ramp[:6].astype(np.float16).reshape(2, 3))
for name, kind in (("bf16", T.BF16), ("q8_0", T.Q8_0), ("q4_0", T.Q4_0), ("q5_1", T.Q5_1)):
    w.add_tensor(name, gguf.quants.quantize(ramp.reshape(2, 32), kind), raw_dtype=kind)
w.add_tensor("i32", np.array([7, -7], dtype=np.int32))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()


def seed(name, fill):
    """Seeds of the fuzz target: small models with each kind of vocabulary and of positions."""
    s = gguf.GGUFWriter(f"../fuzz/corpus/gguf/{name}.gguf", "llama")
    fill(s)
    s.write_header_to_file()
    s.write_kv_data_to_file()
    s.write_tensors_to_file()
    s.close()


def shape(s):
    s.add_block_count(1)
    s.add_context_length(64)
    s.add_embedding_length(16)
    s.add_feed_forward_length(32)
    s.add_head_count(2)
    s.add_head_count_kv(1)
    s.add_layer_norm_rms_eps(1e-5)
    s.add_rope_freq_base(500000)
    s.add_tensor("token_embd.weight", np.zeros((12, 16), dtype=np.float32))
    s.add_tensor("blk.0.attn_q.bias", np.zeros(16, dtype=np.float32))
    s.add_tensor("rope_freqs.weight", np.array([1, 1.5, 4, 8], dtype=np.float32))


def spm(s):
    shape(s)
    s.add_tokenizer_model("llama")
    s.add_token_list(["<unk>", "<s>", "</s>", "<0x0A>", "\u2581", "a", "b", "ab", "\u2581ab", "user token", "", "[PAD11]"])
    s.add_token_scores([0.0, 0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -0.5, -0.25, -1000.0, 0.0, -10000.0])
    s.add_token_types([2, 3, 3, 6, 1, 1, 1, 1, 1, 4, 5, 5])
    s.add_add_bos_token(True)
    s.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    s.add_rope_scaling_factor(2)


def bpe(s):
    shape(s)
    s.add_tokenizer_model("gpt2")
    s.add_tokenizer_pre("llama-bpe")
    s.add_token_list(["a", "b", "\u0120", "ab", "\u0120ab", "<|end|>", "1", "2", "3", "4", "5", "6"])
    s.add_token_types([1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1, 5])
    s.add_token_merges(["a b", "\u0120 ab"])
    s.add_bos_token_id(5)
    s.add_eos_token_id(5)
    s.add_chat_template("{{ messages }}")
    s.add_sliding_window(8)


seed("spm", spm)
seed("bpe", bpe)
