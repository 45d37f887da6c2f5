// gemv.wgsl over a quantised weight in loads of 16 bytes, k a multiple of 32: the cost is the packed bytes.
// x (m, k)   weight (n, k) as lib/packed.wgsl says, four words at a time   y (m, n)   m at most 4
// `split` neighbouring invocations share four rows of weight; their parts are added at the end, always in the same order.
//   normed: x is rmsNorm(x, gain)        gated: y = act(x · weightᵀ) ∘ (x · secondᵀ), act 1 silu, 2 gelu, not form 1
//   added: y = base + …        tabled: levels of NF4 are looked up across eight lanes (lib/table.wgsl)
// second_codes and second_scales are those of the second weight; form 1 binds its own map and codes of scales there.
import package::lib::elem::elem;
import package::lib::few::{normed, gated, Held, results_of};
import package::lib::packed::{form, level, levels};
import package::lib::parts::rows;

struct Params { n: u32, k: u32, eps: f32, offset: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> words: array<vec4u>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read> second_words: array<vec4u>;
@group(0) @binding(4) var<storage, read> second_scales: array<f32>;
@group(0) @binding(5) var<storage, read> x: array<vec4<elem>>;
@group(0) @binding(6) var<storage, read_write> y: array<elem>;
@group(0) @binding(7) var<storage, read> gain: array<vec4<elem>>;
@group(0) @binding(8) var<storage, read> base: array<elem>;

override split: u32 = 16;
override added: u32 = 0;
override tabled: u32 = 0;
const quads = select(8u, 4u, form == 2u); // vec4s of values in four words

alias Values = array<vec4f, quads>;

fn level_of(table: vec2f, code: u32) -> f32 {
  let both = subgroupShuffle(table, code & 7u);
  return select(both.x, both.y, code > 7u);
}

// The levels of half a word: the low one first.
fn four(table: vec2f, word: u32) -> vec4f {
  let code = (vec4u(word) >> vec4u(4u, 0u, 12u, 8u)) & vec4u(15u);
  if (tabled == 0u) { return level(code); }
  return vec4f(level_of(table, code.x), level_of(table, code.y), level_of(table, code.z), level_of(table, code.w));
}

fn values_of(table: vec2f, word: vec4u) -> Values {
  var value: Values;
  for (var i = 0u; i < 4u; i++) {
    if (form == 2u) {
      value[i] = vec4f((vec4i(bitcast<i32>(word[i])) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u));
    } else {
      value[2u * i] = four(table, word[i]);
      value[2u * i + 1u] = four(table, word[i] >> 16u);
    }
  }
  return value;
}

// The scale of four words from `at` on, in `row`. Form 1: the codes are second_words, its map second_scales.
fn scale_for(at: u32, row: u32) -> f32 {
  if (form == 2u) { return scales[row] * 0.007874015718698502; } // f32(1 / 127)
  if (form == 0u) { return scales[at / 2u]; }
  let group = at / 2u;
  let code = (second_words[group / 16u][group / 4u % 4u] >> (8u * (group % 4u))) & 255u;
  return second_scales[code] * scales[group / 256u] + p.offset;
}
fn second_scale(at: u32, row: u32) -> f32 {
  if (form == 2u) { return second_scales[row] * 0.007874015718698502; }
  return second_scales[at / 2u];
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32,
           @builtin(subgroup_invocation_id) place: u32) {
  let columns = 256u / split; // of a workgroup
  let first = group.x * columns;
  let table = vec2f(levels[place % 8u], levels[8u + place % 8u]);
  let width = p.k / (4u * quads);
  var row: array<u32, 4>;
  for (var c = 0u; c < 4u; c++) { row[c] = min(first + lane / split * 4u + c, p.n - 1u); }
  var held: Held;
  // Lanes past the end go on with the last words, times zero: a shuffle wants all of them.
  for (var begin = 0u; begin < width; begin += split) {
    let at = min(begin + lane % split, width - 1u);
    let valid = select(0.0, 1.0, begin + lane % split < width);
    var left: array<Values, rows>;
    for (var r = 0u; r < rows; r++) {
      for (var i = 0u; i < quads; i++) {
        left[r][i] = valid * vec4f(x[r * (p.k / 4u) + at * quads + i]);
        if (normed != 0u) {
          held.square[r] += dot(left[r][i], left[r][i]);
          left[r][i] *= vec4f(gain[at * quads + i]);
        }
      }
    }
    for (var c = 0u; c < 4u; c++) {
      let from_here = row[c] * width + at;
      let right = values_of(table, words[from_here]);
      let scale = scale_for(from_here, row[c]);
      for (var r = 0u; r < rows; r++) {
        var dots = 0.0;
        for (var i = 0u; i < quads; i++) { dots += dot(left[r][i], right[i]); }
        held.sum[r][c] += scale * dots;
      }
      if (gated != 0u) {
        let value = values_of(table, second_words[from_here]);
        let second = second_scale(from_here, row[c]);
        for (var r = 0u; r < rows; r++) {
          var dots = 0.0;
          for (var i = 0u; i < quads; i++) { dots += dot(left[r][i], value[i]); }
          held.other[r][c] += second * dots;
        }
      }
    }
  }
  let value = results_of(held, lane, split, p.k, p.eps);
  for (var i = 0u; i < 2u; i++) {
    let at = lane + 64u * i;
    let row_of = at / columns;
    let column = first + at % columns;
    if (columns * rows > at && column < p.n) {
      var whole = value[i];
      if (added != 0u) { whole += f32(base[row_of * p.n + column]); }
      y[row_of * p.n + column] = elem(whole);
    }
  }
}
