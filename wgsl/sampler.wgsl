// The next token of each row: penalties, then the tokens worth considering, then one of them.   logits (rows, columns)
//   settings (rows, 5): temperature, top k, top p, min p, repetition penalty; temperature 0 takes the likeliest token
//   seeds (rows), position (rows): what the draw of a row depends on      chosen (rows)      logprob (rows), at temperature 1
// One workgroup of 64 a row. top k, top p and min p each keep what lies above some logit, and the highest of the three
// thresholds decides. It is found bit by bit, from the top, on keys that order as the numbers do: the highest key such
// that at least k tokens, or at least the share p of the mass, lie at it or above. Ties at the threshold are all kept.
import package::lib::elem::elem;
import package::lib::uniform::uniform_number;

struct Params { rows: u32, columns: u32, capacity: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<elem>;
@group(0) @binding(2) var<storage, read> settings: array<f32>;
@group(0) @binding(3) var<storage, read> seeds: array<u32>;
@group(0) @binding(4) var<storage, read> position: array<u32>;
@group(0) @binding(5) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(6) var<storage, read_write> logprob: array<f32>;

const lanes = 64u;
var<workgroup> sums: array<vec2f, 64>;
var<workgroup> best_value: array<f32, 64>;
var<workgroup> best_index: array<u32, 64>;

fn sum_of_lanes(lane: u32, value: vec2f) -> vec2f {
  workgroupBarrier();
  sums[lane] = value;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) { sums[lane] += sums[lane + half]; }
  }
  workgroupBarrier();
  return sums[0];
}

// The largest value of all lanes; ties go to the smaller index. The result is in best_value[0] and best_index[0].
fn best_of_lanes(lane: u32, value: f32, index: u32) {
  workgroupBarrier();
  best_value[lane] = value;
  best_index[lane] = index;
  for (var half = 32u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) {
      let value_there = best_value[lane + half];
      let index_there = best_index[lane + half];
      if (value_there > best_value[lane] || (value_there == best_value[lane] && index_there < best_index[lane])) {
        best_value[lane] = value_there;
        best_index[lane] = index_there;
      }
    }
  }
  workgroupBarrier();
}

// A number whose unsigned order is the order of floats.
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

// The highest key with at least `count` tokens, or the mass `share`, at it or above; `wanted` is (count, share).
fn threshold(lane: u32, base: u32, largest: f32, wanted: vec2f, inverse: f32) -> u32 {
  var key = 0u;
  for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
    let tried = key | bit;
    var here = vec2f();
    for (var c = lane; c < p.columns; c += lanes) {
      let value = f32(logits[base + c]);
      if (key_of(value) >= tried) { here += vec2f(1.0, exp((value - largest) * inverse)); }
    }
    let all = sum_of_lanes(lane, here);
    if (all.x >= wanted.x && all.y >= wanted.y) { key = tried; }
  }
  return key;
}

@compute @workgroup_size(64)
fn choose(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let base = row * p.columns;
  let temperature = settings[row * 5u];
  var value = -3.4e38;
  var index = 0u;
  for (var c = lane; c < p.columns; c += lanes) {
    let candidate = f32(logits[base + c]);
    if (candidate > value) { value = candidate; index = c; }
  }
  best_of_lanes(lane, value, index);
  let largest = workgroupUniformLoad(&best_value[0]);
  index = workgroupUniformLoad(&best_index[0]);
  // At temperature 1 for the log-probability, at the temperature of the row for its choices.
  let inverse = 1.0 / max(temperature, 1e-6);
  var mass = vec2f();
  for (var c = lane; c < p.columns; c += lanes) {
    let below = f32(logits[base + c]) - largest;
    mass += vec2f(exp(below), exp(below * inverse));
  }
  mass = sum_of_lanes(lane, mass);

  if (temperature > 0.0) {
    let top_k = settings[row * 5u + 1u];
    let top_p = settings[row * 5u + 2u];
    let least = largest + log(max(settings[row * 5u + 3u], 1e-38)) * temperature;
    var key = key_of(least);
    if (top_k > 0.0 && top_k < f32(p.columns)) { key = max(key, threshold(lane, base, largest, vec2f(top_k, 0.0), inverse)); }
    if (top_p < 1.0) { key = max(key, threshold(lane, base, largest, vec2f(1.0, top_p * mass.y), inverse)); }
    // Gumbel's trick: the largest of x / temperature - log(-log(u)) is distributed as softmax(x / temperature).
    let draw = seeds[row] + position[row] * 0x85ebca6bu;
    value = -3.4e38;
    index = 0u;
    for (var c = lane; c < p.columns; c += lanes) {
      let candidate = f32(logits[base + c]);
      if (key_of(candidate) >= key) {
        let luck = candidate * inverse - log(-log(uniform_number(draw, c)));
        if (luck > value) { value = luck; index = c; }
      }
    }
    best_of_lanes(lane, value, index);
    index = best_index[0];
  }
  if (lane == 0u) {
    chosen[row] = index;
    logprob[row] = f32(logits[base + index]) - largest - log(mass.x);
  }
}

// Repetition penalty: tokens of the row's history have positive logits divided by it and negative ones multiplied.
//   history (rows, capacity): the tokens so far, position + 1 of them      logits is read, penalized is a copy of it
@group(0) @binding(3) var<storage, read> history: array<u32>;
@group(0) @binding(5) var<storage, read_write> penalized: array<elem>;

@compute @workgroup_size(64)
fn penalize(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y;
  let at = group.x * 64u + lane;
  if (at > position[row] || at >= p.capacity) { return; }
  let token = history[row * p.capacity + at];
  if (token >= p.columns) { return; }
  let penalty = settings[row * 5u + 4u];
  let value = f32(logits[row * p.columns + token]);
  // A token that comes twice is written twice with the same value.
  penalized[row * p.columns + token] = elem(select(value * penalty, value / penalty, value > 0.0));
}

// Takes the chosen tokens up: they are the next inputs, one place further.
@group(0) @binding(1) var<storage, read> next: array<u32>;
@group(0) @binding(2) var<storage, read_write> ids: array<u32>; // (rows)
@group(0) @binding(3) var<storage, read_write> places: array<u32>; // (rows): position
@group(0) @binding(4) var<storage, read_write> past: array<u32>; // (rows, capacity): history

@compute @workgroup_size(64)
fn advance(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= p.rows) { return; }
  let place = places[row] + 1u;
  ids[row] = next[row];
  places[row] = place;
  if (place < p.capacity) { past[row * p.capacity + place] = next[row]; }
}
