// A certificate for a server of a test.
#pragma once

#include <cstdio>
#include <fmt/format.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include "core/file.h"

namespace lathe {

// A key and its self-signed certificate, in files that go with it.
struct Certificate {
  fs::path folder = fs::temp_directory_path() / fmt::format("lathe-tls-{}", ::getpid());
  fs::path key = folder / "key.pem", certificate = folder / "cert.pem";
  Certificate() {
    fs::create_directories(folder);
    EVP_PKEY* pair = EVP_EC_gen("P-256");
    X509* cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, pair);
    X509_NAME* name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                               -1, -1, 0);
    X509_set_issuer_name(cert, name);
    X509_sign(cert, pair, EVP_sha256());
    FILE* out = std::fopen(key.c_str(), "w");
    PEM_write_PrivateKey(out, pair, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(out);
    out = std::fopen(certificate.c_str(), "w");
    PEM_write_X509(out, cert);
    std::fclose(out);
    X509_free(cert);
    EVP_PKEY_free(pair);
  }
  ~Certificate() { fs::remove_all(folder); }
};

}  // namespace lathe
