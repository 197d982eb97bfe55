/* What HeliosProxy uses of wolfSSL, and nothing else.
 *
 * Read by wolfSSL's own sources, by its assembly (so: preprocessor lines only, no declarations) and, through
 * WOLFSSL_USER_SETTINGS, by our code. The three must agree, or structures differ in size.
 */
#ifndef HELIOS_WOLFSSL_USER_SETTINGS_H
#define HELIOS_WOLFSSL_USER_SETTINGS_H

/* Assembly, chosen by CPUID at run time. Measured against the portable C: AES-256-GCM thirtyfold, a P-256 signature
 * sevenfold, SHA-256 one and a half times. Other architectures use the portable C. */
#if defined(__x86_64__)
#ifndef WOLFSSL_X86_64_BUILD
#define WOLFSSL_X86_64_BUILD
#endif
#define USE_INTEL_SPEEDUP
#define WOLFSSL_AESNI
#define WOLFSSL_SP_X86_64
#define WOLFSSL_SP_X86_64_ASM
#define WOLFSSL_SP_ASM
#endif

/* Big numbers: constant time, special code for the curves and RSA sizes that certificates have. */
#define WOLFSSL_SP_MATH_ALL
#define SP_INT_BITS 4096
#define WOLFSSL_HAVE_SP_RSA
#define WOLFSSL_HAVE_SP_ECC
#define WOLFSSL_SP_4096
#define WOLFSSL_SP_384
#define WOLFSSL_SP_LARGE_CODE
#define TFM_TIMING_RESISTANT
#define ECC_TIMING_RESISTANT
#define WC_RSA_BLINDING

/* Random numbers: Hash-DRBG, seeded by getrandom(2). */
#define HAVE_HASHDRBG
#define WOLFSSL_GETRANDOM

/* Digests. MD5 stays: PostgreSQL's legacy password hash needs it. */
#define WOLFSSL_SHA384
#define WOLFSSL_SHA512
#define HAVE_HKDF
#define WOLFSSL_BASE64_ENCODE
#define NO_MD4
#define WC_NO_ASYNC_THREADING

/* Ciphers. CBC stays for encrypted private keys only. */
#define HAVE_AESGCM
#define GCM_TABLE_4BIT
#define HAVE_CHACHA
#define HAVE_POLY1305
#define HAVE_ONE_TIME_AUTH
#define NO_RC4
#define NO_DES3
#define NO_DSA
#define NO_DH
#define NO_PSK

/* Keys and certificates. */
#define HAVE_ECC
#define ECC_SHAMIR
#define HAVE_ECC384
#define ECC_USER_CURVES
#define HAVE_CURVE25519
#define WC_RSA_PSS
#define WOLFSSL_PSS_LONG_SALT
#define WOLFSSL_ALT_NAMES
#define WOLFSSL_IP_ALT_NAME
#define WOLFSSL_ALT_CERT_CHAINS
#define KEEP_PEER_CERT
#define KEEP_OUR_CERT
#define HAVE_CRL

/* TLS 1.2 and 1.3, both sides. No session cache: its lock would be shared by the cores; tickets need none. */
#define WOLFSSL_TLS13
#define NO_OLD_TLS
#define HAVE_TLS_EXTENSIONS
#define HAVE_SUPPORTED_CURVES
#define HAVE_SNI
#define HAVE_ALPN
#define HAVE_SESSION_TICKET
#define HAVE_EXTENDED_MASTER
#define HAVE_SERVER_RENEGOTIATION_INFO
#define NO_SESSION_CACHE
#define HAVE_THREAD_LS
#define HAVE_EX_DATA

/* wolfSSL never touches a socket: bytes come and go through our callbacks. */
#define WOLFSSL_USER_IO
#define WOLFSSL_NO_SOCK

#define NO_OLD_RNGNAME
#define NO_OLD_WC_NAMES
#define NO_OLD_SSL_NAMES
#define NO_OLD_SHA_NAMES
#define NO_OLD_MD5_NAME

#endif
