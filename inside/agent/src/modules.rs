//! Kernel modules, in the order that the maker of the initial file system has found out.

use std::io;
use std::path::Path;

/// Loads the modules that `directory/order` names, one a line. One that is there already is no error.
pub(crate) fn load(directory: &Path) -> io::Result<()> {
    let list = directory.join("order");
    let names = std::fs::read_to_string(&list)
        .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", list.display())))?;
    for name in names.lines() {
        let file = std::fs::File::open(directory.join(name))
            .map_err(|e| io::Error::new(e.kind(), format!("module {name}: {e}")))?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(io::Error::new(io::Error::from(e).kind(), format!("module {name}: {e}"))),
        }
    }
    Ok(())
}
