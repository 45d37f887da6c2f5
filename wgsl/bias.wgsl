// y = x + bias, one row for all.                                        x, y (rows, columns)   bias (columns)
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;

struct Params { size: u32, columns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> bias: array<elem>;
@group(0) @binding(3) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
           @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i < p.size) { y[i] = elem(f32(x[i]) + f32(bias[i % p.columns])); }
}
