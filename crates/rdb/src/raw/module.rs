//! Data of modules: a sequence of self-describing parts (`module.c`, `RDB_MODULE_OPCODE_*`).

use crate::cursor::Cursor;
use crate::error::{Take, corrupt};
use crate::limits::Limits;
use crate::opcode::Role;
use crate::raw::Visitor;
use crate::raw::value::{OpenText, Part};

const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A module's data type and the version of its encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ModuleId(pub u64);

impl ModuleId {
    /// The type's name, nine characters.
    pub fn name(self) -> String {
        let index = |at: u64| (self.0 >> (10 + 6 * at) & 63) as usize;
        (0..9).rev().map(|at| char::from(CHARACTERS[index(at)])).collect()
    }

    /// The version of the module's encoding, 0 to 1023.
    pub fn version(self) -> u64 {
        self.0 & 1023
    }
}

/// A part of a module's data; strings pass by [`Visitor::text`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ModulePart {
    /// A signed number.
    Signed(i64),
    /// An unsigned number.
    Unsigned(u64),
    /// A number of 32 bits.
    Float(f32),
    /// A number of 64 bits.
    Double(f64),
}

/// The position in a module's data.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ModuleParts {
    open: Option<OpenText>,
}

impl ModuleParts {
    /// Begins a value: the module's identifier.
    pub(crate) fn value(cursor: &mut Cursor<'_>) -> Take<(ModuleId, Self)> {
        Ok((ModuleId(cursor.length()?), Self { open: None }))
    }

    /// Begins data outside of keys: the identifier, and the time at which the module loads it.
    pub(crate) fn aux(cursor: &mut Cursor<'_>) -> Take<(ModuleId, Self)> {
        let module = ModuleId(cursor.length()?);
        if cursor.length()? != 2 {
            return corrupt("a module's data does not begin with its load time");
        }
        cursor.length()?;
        Ok((module, Self { open: None }))
    }

    /// Decodes one part; returns whether the data has ended.
    pub(crate) fn step<V: Visitor>(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        visitor: &mut V,
    ) -> Take<bool> {
        if let Some(open) = &mut self.open {
            if open.go_on(cursor, visitor)? {
                self.open = None;
            }
            return Ok(false);
        }
        let part = match cursor.length()? {
            0 => return Ok(true),
            1 => ModulePart::Signed(cursor.length()?.cast_signed()),
            2 => ModulePart::Unsigned(cursor.length()?),
            3 => ModulePart::Float(f32::from_le_bytes(cursor.array()?)),
            4 => ModulePart::Double(f64::from_le_bytes(cursor.array()?)),
            5 => {
                OpenText::begin(&mut self.open, Role::Module, cursor, limits, visitor)?;
                return Ok(false);
            }
            _ => return corrupt("a part of a module's data has an unknown type"),
        };
        visitor.part(Part::Module(part))?;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_identifier_contains_its_name() {
        // ReJSON-RL, encoding version 3: `moduleTypeEncodeId` of `module.c`.
        let id = b"ReJSON-RL".iter().fold(0u64, |id, c| {
            id << 6 | CHARACTERS.iter().position(|known| known == c).unwrap() as u64
        });
        let id = ModuleId(id << 10 | 3);
        assert_eq!((id.name().as_str(), id.version()), ("ReJSON-RL", 3));
    }
}
