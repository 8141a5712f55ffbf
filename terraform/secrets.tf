# Only the containers: values are added by secrets.sh and by hand, so none is ever in Terraform's state.
locals {
  model_secrets = { for variable in var.model_keys : variable => lower(replace(variable, "_", "-")) }

  # which functions and jobs read it
  secret_readers = merge(
    {
      platform-key = ["ingest", "run_agent", "callbacks", "api"]
      database-url = ["api", "migrate"]
      smoke-key    = ["pipeline"]
    },
    { for secret in values(local.model_secrets) : secret => ["run_agent"] }
  )

  readers = merge(
    { for name, function in module.function : name => function.member },
    {
      migrate  = google_service_account.migrate.member
      pipeline = google_service_account.pipeline.member
    }
  )
}

resource "google_secret_manager_secret" "secret" {
  for_each = local.secret_readers

  secret_id = each.key

  replication {
    user_managed {
      replicas {
        location = var.region
        customer_managed_encryption {
          kms_key_name = google_kms_crypto_key.secrets.id
        }
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }

  depends_on = [google_kms_crypto_key_iam_member.secret_manager]
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = merge([
    for secret, readers in local.secret_readers : { for reader in readers : "${secret}/${reader}" => [secret, reader] }
  ]...)

  secret_id = google_secret_manager_secret.secret[each.value[0]].id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.readers[each.value[1]]
}
