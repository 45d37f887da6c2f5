// weight (n, k): a quantised matrix, decoded as lib/packed.wgsl says; k is a multiple of 8.
// One invocation a step of eight values. Products read the packed form themselves: this is for looking at weights.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::packed::{scale_of, eight};

struct Params { n: u32, k: u32, offset: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(5) var<storage, read_write> weight: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let at = flat_workgroup(group, groups) * 64u + lane;
  if (at >= p.n * p.k / 8u) { return; }
  let values = eight(at, scale_of(at, at / (p.k / 8u), p.offset));
  for (var i = 0u; i < 8u; i++) { weight[8u * at + i] = elem(values[i / 4u][i % 4u]); }
}
