# The key that Secret Manager seals every secret with: disabling it shuts all of them at once.
resource "google_kms_key_ring" "recado" {
  name       = "recado"
  location   = var.region
  depends_on = [google_project_service.api]
}

resource "google_kms_crypto_key" "secrets" {
  name            = "secrets"
  key_ring        = google_kms_key_ring.recado.id
  rotation_period = "7776000s" # 90 days

  lifecycle {
    prevent_destroy = true # every secret would be lost with it
  }
}

# Only Google makes this account: see "Google's own accounts" in README.md.
resource "google_kms_crypto_key_iam_member" "secret_manager" {
  crypto_key_id = google_kms_crypto_key.secrets.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  member        = "serviceAccount:service-${local.number}@gcp-sa-secretmanager.iam.gserviceaccount.com"
}
