// Choices along rows: the largest element, the k largest, or one drawn at random.   x (rows, columns), in parts
// Rows are dealt out as lib/rows says. Ties go to the smaller index, so the result does not depend on the adapter.
import package::lib::elem::elem;
import package::lib::part::{part, wide, part_size, numbers, numbers_of};
import package::lib::rows::{group_size, lanes, place_of};
import package::lib::uniform::uniform_number;

struct Params { rows: u32, columns: u32, k: u32, inverse_temperature: f32, seed: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<part>;
@group(0) @binding(2) var<storage, read_write> indices: array<u32>; // (rows) or (rows, k)
@group(0) @binding(3) var<storage, read_write> values: array<elem>; // (rows, k)

// An element; one that was not found is behind all others.
struct Found { value: f32, index: u32 }
// The best of each place in the parts that an invocation walked.
struct Best { value: wide, index: numbers }
const nothing = 0xffffffffu;
const least = -3.4e38;

var<workgroup> found_value: array<f32, lanes>;
var<workgroup> found_index: array<u32, lanes>;

fn better(a: Found, b: Found) -> bool { return a.value > b.value || (a.value == b.value && a.index < b.index); }

// `best`, or the candidates where they come before it: they are walked in ascending order, so ties stay.
fn with_candidates(best: Best, candidates: wide, at: numbers) -> Best {
  let ahead = candidates > best.value;
  return Best(select(best.value, candidates, ahead), select(best.index, at, ahead));
}

@if(quads) fn best_of_part(best: Best) -> Found {
  var all = Found(best.value.x, best.index.x);
  let y = Found(best.value.y, best.index.y);
  let z = Found(best.value.z, best.index.z);
  let w = Found(best.value.w, best.index.w);
  if (better(y, all)) { all = y; }
  if (better(z, all)) { all = z; }
  if (better(w, all)) { all = w; }
  return all;
}
@if(!quads) fn best_of_part(best: Best) -> Found { return Found(best.value, best.index); }

// The best of what the lanes of a row found.
fn best_of_lanes(lane: u32, mine: Found) -> Found {
  if (lanes == 1u) { return mine; }
  workgroupBarrier(); // the last result may still be being read
  found_value[lane] = mine.value;
  found_index[lane] = mine.index;
  for (var half = lanes / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if (lane < half) {
      let other = Found(found_value[lane + half], found_index[lane + half]);
      if (better(other, Found(found_value[lane], found_index[lane]))) {
        found_value[lane] = other.value;
        found_index[lane] = other.index;
      }
    }
  }
  workgroupBarrier();
  return Found(found_value[0], found_index[0]);
}

// Round i finds the largest element that comes after the one of round i - 1.
@compute @workgroup_size(group_size)
fn top_k(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var last = Found(3.4e38, 0u);
  for (var round = 0u; round < p.k; round++) {
    var best = Best(wide(least), numbers(nothing));
    for (var c = at.lane; c < columns; c += lanes) {
      let candidates = wide(x[base + c]);
      let at_columns = numbers_of(c);
      let before = candidates < wide(last.value);
      let tied = (candidates == wide(last.value)) & (at_columns > numbers(last.index));
      let open = before | tied | (numbers(round) == numbers(0u));
      best = with_candidates(best, select(wide(least), candidates, open), at_columns);
    }
    last = best_of_lanes(at.lane, best_of_part(best));
    if (at.lane == 0u && at.row < p.rows) {
      indices[at.row * p.k + round] = last.index;
      values[at.row * p.k + round] = elem(last.value);
    }
  }
}

// A uniform number for each place of a part.
@if(quads) fn uniform_numbers(i: numbers) -> wide {
  return wide(uniform_number(p.seed, i.x), uniform_number(p.seed, i.y), uniform_number(p.seed, i.z), uniform_number(p.seed, i.w));
}
@if(!quads) fn uniform_numbers(i: numbers) -> wide { return uniform_number(p.seed, i); }

// Gumbel's trick: the largest of x / temperature - log(-log(u)) is distributed as softmax(x / temperature).
@compute @workgroup_size(group_size)
fn sample(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
          @builtin(local_invocation_index) local: u32) {
  let at = place_of(group, groups, local);
  let base = at.row * p.columns;
  let columns = select(0u, p.columns, at.row < p.rows);
  var best = Best(wide(least), numbers(nothing));
  for (var c = at.lane; c < columns; c += lanes) {
    let noise = -log(-log(uniform_numbers(numbers_of(base + c))));
    best = with_candidates(best, wide(x[base + c]) * p.inverse_temperature + noise, numbers_of(c));
  }
  let drawn = best_of_lanes(at.lane, best_of_part(best));
  if (at.lane == 0u && at.row < p.rows) { indices[at.row] = drawn.index; }
}
