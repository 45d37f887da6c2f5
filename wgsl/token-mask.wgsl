// Takes tokens away before one is chosen: those without a bit become the lowest f32, and the rest is copied.
//   logits (rows, columns)   mask (rows, words): bit c % 32 of word c / 32 is 1 where column c may stay
//   restricted (rows, columns), f32 whatever the logits are: in f16 the lowest number is not low enough for every temperature
// A workgroup for 2048 columns of a row; neighbouring lanes take neighbouring columns, so that loads are coalesced.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { rows: u32, columns: u32, words: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> logits: array<elem>;
@group(0) @binding(2) var<storage, read> mask: array<u32>;
@group(0) @binding(3) var<storage, read_write> restricted: array<f32>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups);
  let tiles = (p.columns + 2047u) / 2048u;
  let row = i / tiles;
  if (row >= p.rows) { return; }
  let begin = i % tiles * 2048u;
  let end = min(p.columns, begin + 2048u);
  for (var c = begin + lane; c < end; c += 64u) {
    let bits = mask[row * p.words + c / 32u];
    let at = row * p.columns + c;
    restricted[at] = select(-3.4e38, f32(logits[at]), ((bits >> (c % 32u)) & 1u) == 1u);
  }
}
