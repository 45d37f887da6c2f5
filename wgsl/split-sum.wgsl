// y = sum of parts over the splits, in their order: the second half of a product that was split along k.
//   parts (batch, splits, size) f32   y (batch, size), size = m * n      onto: y = base + alpha * sum
// One invocation an element of y; base_row is 0 where one row of base (n) serves all rows.
import package::lib::elem::elem;
import package::lib::activation::activated;
import package::lib::grid::flat_workgroup;

struct Params { batch: u32, splits: u32, size: u32, n: u32, base_row: u32, base_stride: u32, alpha: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<elem>;
@group(0) @binding(3) var<storage, read> base: array<elem>;

override activation: u32 = 0; // 1 SiLU, 2 GELU

fn sum_at(i: u32) -> f32 {
  var sum = 0.0;
  for (var s = 0u; s < p.splits; s++) { sum += parts[(i / p.size * p.splits + s) * p.size + i % p.size]; }
  return sum;
}

@compute @workgroup_size(64)
fn plain(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.batch * p.size) { y[i] = elem(activated(activation, p.alpha * sum_at(i))); }
}

@compute @workgroup_size(64)
fn onto(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.batch * p.size) { return; }
  let at = i % p.size;
  let from_base = i / p.size * p.base_stride + at / p.n * p.base_row + at % p.n;
  y[i] = elem(activated(activation, f32(base[from_base]) + p.alpha * sum_at(i)));
}
