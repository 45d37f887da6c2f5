// Sums kept as a pair hi + lo of about 48 bits (Knuth's two-sum). WGSL lets a compiler reorder sums, which would delete the
// low word; a pass through the integers with a zero that it cannot know forbids that.
struct Pair { hi: vec4f, lo: vec4f }

fn fixed(value: vec4f, zero: u32) -> vec4f { return bitcast<vec4f>(bitcast<vec4u>(value) ^ vec4u(zero)); }

// pair + value; `zero` is 0.
fn added(pair: Pair, value: vec4f, zero: u32) -> Pair {
  let sum = fixed(pair.hi + value, zero);
  let rest = fixed(sum - pair.hi, zero);
  return Pair(sum, pair.lo + (fixed(pair.hi - fixed(sum - rest, zero), zero) + fixed(value - rest, zero)));
}
