"""Small PDF files for tests."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Dict, List


def make_pdf(page: bytes, deflated: bool = False) -> bytes:
    """A whole PDF file of one page.

    :param page: its content stream, such as ``b"(Hello) Tj"``
    """
    stream, head = (zlib.compress(page), b" /Filter /FlateDecode") if deflated else (page, b"")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 300] /Contents 4 0 R /Resources "
        b"<< /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(stream), head, stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    pdf, starts = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        starts.append(len(pdf))
        pdf += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % start for start in starts)
    size = len(objects) + 1
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(pdf))
    return pdf + b"xref\n0 %d\n0000000000 65535 f \n" % size + table + end


def text_page(*lines: str) -> bytes:
    """A content stream that shows lines of text."""
    shown = " 0 -14 Td ".join(f"({line}) Tj" for line in lines)
    return f"BT /F1 12 Tf 72 200 Td {shown} ET".encode()


def pdf_message(name: str, pdf: bytes, question: str = "What is in it?") -> List[Dict[str, Any]]:
    """The input of a request with a PDF file."""
    data = "data:application/pdf;base64," + base64.b64encode(pdf).decode()
    parts = [
        {"type": "input_file", "filename": name, "file_data": data},
        {"type": "input_text", "text": question},
    ]
    return [{"type": "message", "role": "user", "content": parts}]
