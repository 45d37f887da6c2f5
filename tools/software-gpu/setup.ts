// Sets up a GPU in software and prints the environment that makes Vulkan programs use it, for a shell:
//   eval "$(node tools/software-gpu/setup.ts)"
// Nexus' own commands need none of this: they do the same inside their process.
import { installSoftwareDriver } from '../../src/host/apt.ts'
import { findSoftwareDrivers, prepareSoftwareDriver } from '../../src/host/software-gpu.ts'

try {
  if (findSoftwareDrivers().length === 0) await installSoftwareDriver()
  const [driver] = findSoftwareDrivers()
  if (!driver) throw new Error('The software driver was installed but is not where it should be')
  console.error(`Using ${driver.name}: ${driver.manifest}`)
  for (const [name, value] of Object.entries(await prepareSoftwareDriver(driver)))
    console.log(`export ${name}='${value.replaceAll("'", "'\\''")}'`)
} catch (error) {
  console.error(`nexus: ${(error as Error).message}`)
  process.exit(1)
}
