"""Text of files that people edit: UTF-8, with or without a mark at the start."""

from reid.errors import UserError


def decode_text(content: bytes, where: str, remedy: str) -> str:
    """Decode UTF-8.

    Args:
        content: Bytes of the file.
        where: What to call the file in an error.
        remedy: What to do about bytes of another encoding.

    Raises:
        UserError: Not UTF-8; the message names the line and the byte.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{where}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; {remedy}"
        ) from None
