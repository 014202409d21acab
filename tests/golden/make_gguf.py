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
